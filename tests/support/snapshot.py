"""What a tree of files is, as a value: two trees are equal if and only if their snapshots are.

Taken from the mount and from what a reference unpacker wrote, and compared in differential tests.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything that unpacking an image sets; sizes of directories are the file system's own business."""

    kind: str
    mode: str
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: str
    target: bytes
    device: int
    links: int
    group: bytes  # the first path, in order, of all names of this inode
    xattrs: tuple[tuple[str, bytes], ...]


def snapshot(root: str | os.PathLike[str], *, content: bool = True) -> dict[bytes, Entry]:
    """Return every entry below *root* (and the root as b'.') by its path."""
    top = os.fsencode(root)
    entries: dict[bytes, Entry] = {}
    first_names: dict[int, bytes] = {}

    def visit(path: bytes) -> None:
        full = os.path.join(top, path)
        status = os.lstat(full)
        entries[path] = _entry(full, path, status, first_names, with_content=content)
        if stat.S_ISDIR(status.st_mode):
            for name in sorted(os.listdir(full)):
                visit(name if path == b"." else os.path.join(path, name))

    visit(b".")
    return entries


def _entry(
    full: bytes, path: bytes, status: os.stat_result, first_names: dict[int, bytes], *, with_content: bool
) -> Entry:
    regular, directory = stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)
    links = 1 if directory else status.st_nlink
    group = first_names.setdefault(status.st_ino, path) if links > 1 else path
    target = os.readlink(full) if stat.S_ISLNK(status.st_mode) else b""
    return Entry(
        kind=stat.filemode(status.st_mode)[0],
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if regular else 0,
        content=_sha256(full) if regular and with_content else "",
        target=target,
        device=status.st_rdev,
        links=links,
        group=group,
        xattrs=_xattrs(full),
    )


def _sha256(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def differences(one: dict[bytes, Entry], other: dict[bytes, Entry], *, at_most: int = 20) -> list[str]:
    """Return lines that say where two snapshots differ, at most *at_most*; none where they are equal."""
    lines = []
    for path in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(path), other.get(path)
        if mine == theirs:
            continue
        if mine is None or theirs is None:
            lines.append(f"{path!r}: {'only in the second' if mine is None else 'only in the first'}")
            continue
        for field in Entry.__dataclass_fields__:
            if (a := getattr(mine, field)) != (b := getattr(theirs, field)):
                lines.append(f"{path!r}: {field} {a!r} != {b!r}")
    return lines[:at_most]
