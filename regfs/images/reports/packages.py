"""`packages` of an image as text: what its package manager has installed, by the manager's own database.

    deb	bash	5.2.15-2+b7	amd64
    apk	musl	1.2.5-r0	x86_64
    rpm	dnf	4:4.14.0-9.el9	noarch

The lines are sorted, and tabs separate the fields. Of rpm's databases only SQLite's is read (rpm_database.py), the
default since rpm 4.16; a line names a database that is not read. Used by tree/image.py. Thread rule: a function.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from regfs.errors import BadContent, NotADirectory, NotFound, TooLarge
from regfs.images.image import Image
from regfs.images.reports.rpm_database import rpm_packages
from regfs.model.attributes import is_directory, mode_of, size_of
from regfs.model.packages import Package, apk_packages, dpkg_packages
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.paths import find

MOST = 64 << 20
"""The size in bytes of the largest database that is read. Debian with all its packages has some 50 MB."""

_DPKG, _DPKG_DIRECTORY = b"var/lib/dpkg/status", b"var/lib/dpkg/status.d"
_MD5SUMS = b".md5sums"
_APK = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")
_RPM = (b"var/lib/rpm", b"usr/lib/sysimage/rpm", b"usr/share/rpm")
_RPM_READ, _RPM_UNREAD = b"rpmdb.sqlite", (b"Packages", b"Packages.db", b"rpmdb.sqlite-wal")
_MOST_FILES = 10_000


def packages_text(image: Image) -> str:
    """Return the text. Waits for all layers, as rootfs() does, and raises its errors; TooLarge over MOST bytes."""
    tree = image.rootfs()
    rpm, remarks = _rpm(image, tree)
    packages = sorted({*_dpkg(image, tree), *_apk(image, tree), *rpm})
    text = "".join("\t".join(package) + "\n" for package in packages)
    return text + "".join(f"# {each}\n" for each in remarks) or "# no database of dpkg, apk or rpm\n"


def _dpkg(image: Image, tree: FileTree) -> Iterator[Package]:
    yield from dpkg_packages(_content(image, tree, _DPKG))
    directory = _node(tree, _DPKG_DIRECTORY)
    if directory is None or not is_directory(tree.attributes(directory)):
        return
    for name, _, _ in tree.children(directory, 0, _MOST_FILES):
        if not name.endswith(_MD5SUMS):
            yield from dpkg_packages(_content(image, tree, _DPKG_DIRECTORY + b"/" + name))


def _apk(image: Image, tree: FileTree) -> Iterator[Package]:
    for path in _APK:
        yield from apk_packages(_content(image, tree, path))


def _rpm(image: Image, tree: FileTree) -> tuple[set[Package], list[str]]:
    """Return rpm's packages, and a line for each database that is not read."""
    found: set[Package] = set()
    remarks = {}
    for directory in _RPM:
        path = directory + b"/" + _RPM_READ
        try:
            if content := _content(image, tree, path):
                found |= set(rpm_packages(content))
        except BadContent as error:
            remarks[_RPM_READ] = f"{path.decode()} of rpm is not read: {error}"
        for name in _RPM_UNREAD:
            if _size(tree, directory + b"/" + name):
                remarks.setdefault(
                    name,
                    f"{directory.decode()}/{name.decode()} of rpm is not read here: rpm --dbpath COPY -qa does, with a "
                    "copy of that directory, in which it may write",
                )
    return found, list(remarks.values())


def _size(tree: FileTree, path: bytes) -> int:
    """Return the size of the file at *path*, 0 if there is none."""
    node = _node(tree, path)
    attributes = None if node is None else tree.attributes(node)
    return 0 if attributes is None or not stat.S_ISREG(mode_of(attributes)) else size_of(attributes)


def _node(tree: FileTree, path: bytes) -> int | None:
    try:
        return find(tree, path)
    except (NotFound, NotADirectory):
        return None


def _content(image: Image, tree: FileTree, path: bytes) -> bytes:
    """Return the bytes of the file at *path*, b"" if there is none."""
    node = _node(tree, path)
    if node is None:
        return b""
    attributes = tree.attributes(node)
    if not stat.S_ISREG(mode_of(attributes)):
        return b""
    if size_of(attributes) > MOST:
        raise TooLarge(f"{image}: {path.decode()} has {size_of(attributes)} bytes, more than {MOST}")
    opened = image.contents.open(tree.content(node))
    try:
        return opened.read_at(0, opened.size)
    finally:
        opened.close()
