"""`.diff/A..B/` in a repository: what differs between two of its images.

    library/debian/.diff/
    └── 12.1..12.2/         A and B are tags, digests or `@` and a short digest; opens, is not listed
        ├── summary         a line for each path and each setting of the configs, as `regfs diff` prints them
        ├── added/          what only 12.2 has, and the directories on the way to it
        ├── removed/        what only 12.1 has
        └── changed/        what differs: etc/motd/a as it is in 12.1, etc/motd/b as it is in 12.2

rootfs/trees_of_differences.py says how names collide in changed/. Used by namespace.py. Any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from regfs.errors import NotFound, Unsupported
from regfs.images.image import Image
from regfs.images.pinned_images import Images, PinnedImage
from regfs.images.repository import Repository
from regfs.model.attributes import Attributes
from regfs.model.dates import moment
from regfs.model.digest import Digest
from regfs.model.names import Version, is_tag
from regfs.rootfs.differences import Kind
from regfs.rootfs.file_tree import FileTree
from regfs.tree.node import FILE_MODE, FOREVER, TABLE_MODE, Child, Found, TableDirectory, directory_attributes
from regfs.tree.unlisted_xattrs import origin_of
from regfs.tree.views.computed import ComputedFile
from regfs.tree.views.directory import Entry, ViewDirectory

NAME = ".diff"
_BETWEEN = ".."
_KINDS: tuple[Kind, ...] = ("added", "removed", "changed")
# The end of a comparison's key, by which another process locates the node.
_KEPT = re.compile(r".+@([a-z0-9]+:[0-9a-f]+)\.\.([a-z0-9]+:[0-9a-f]+)")

DigestNamed = Callable[[str], Version | None]


@dataclass(frozen=True, slots=True)
class DiffDirectory:
    """The directory `.diff` of a repository. *digest_named* reads `sha256:…`, `@sha256-…` and `@<short>`."""

    key: str
    repository: Repository
    images: Images
    digest_named: DigestNamed

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def children(self) -> list[Child]:
        """Return nothing: any two images can be compared."""
        return []

    def lookup(self, name: str) -> Found:
        """Return the directory of a comparison; blocks on the network for the tags. Raises NotFound."""
        if kept := _KEPT.fullmatch(name):
            left, right = (self.images.pinned(self.repository, Digest.parse(digest)) for digest in kept.groups())
            return Found(_comparison(f"{self.key}/{name}", left, right), FOREVER)
        a, b = self._versions(name)
        (left, valid_a), (right, valid_b) = self._pinned(a), self._pinned(b)
        return Found(
            _comparison(f"{self.key}/{name}@{left.digest}..{right.digest}", left, right), min(valid_a, valid_b)
        )

    def _versions(self, name: str) -> tuple[Version, Version]:
        at = name.find(_BETWEEN)
        while at >= 0:  # a tag may have two dots in it
            a, b = self._version(name[:at]), self._version(name[at + len(_BETWEEN) :])
            if a is not None and b is not None:
                return a, b
            at = name.find(_BETWEEN, at + 1)
        raise NotFound(f"{name[:300]!r} does not name two images; write TAG..TAG, or digests in place of tags")

    def _version(self, text: str) -> Version | None:
        """Return what a digest, `tag` or `tag@time` names; None if *text* is none of these."""
        if named := self.digest_named(text):
            return named
        tag, separator, time = text.partition("@")
        at = moment(time) if separator else None
        return Version(tag, at=at) if is_tag(tag) and (at is not None or not separator) else None

    def _pinned(self, version: Version) -> tuple[PinnedImage, float]:
        """Return the image that a name means, and for how many seconds this holds."""
        digest = version.digest
        if version.short_digest is not None:
            digest = self.repository.manifests.digest_beginning(version.short_digest)
        if digest is not None:
            return self.images.pinned(self.repository, digest), FOREVER
        assert version.tag is not None
        if version.at is not None:
            return self.images.pinned(self.repository, self.repository.tags.past.at(version.tag, version.at)), FOREVER
        resolved = self.repository.tags.resolve(version.tag)
        return self.images.pinned(self.repository, resolved.digest, resolved.media_type), resolved.valid_s


def _comparison(key: str, a: PinnedImage, b: PinnedImage) -> ViewDirectory:
    for pinned in (a, b):  # raises if the registry lacks the manifest, or the policy does not allow it
        if not pinned.image.has_rootfs:
            raise Unsupported(f"{pinned.image} is an artifact: it has no layers of files that could be compared")

    def summary(key: str) -> ComputedFile:
        return ComputedFile(key, lambda: "".join(_lines(a.image, b.image)), lambda: b.created_ns)

    entries = {"summary": Entry(FILE_MODE, summary)}
    entries |= {kind: Entry(TABLE_MODE, partial(_tree, kind, a, b)) for kind in _KINDS}
    return ViewDirectory(key, b, lambda: entries)


def _tree(kind: Kind, a: PinnedImage, b: PinnedImage, key: str) -> TableDirectory:
    """Return the directory of one of the trees; its table is made at the first look-up."""
    identity = f"{kind} {a.digest}..{b.digest} {b.image.wanted}"
    return TableDirectory(key, identity, partial(_table, kind, a, b), partial(_origin, kind, a, b))


def _table(kind: Kind, a: PinnedImage, b: PinnedImage) -> FileTree:
    return b.images.comparing.tree(kind, a.image.rootfs(), b.image.rootfs())


def _origin(kind: Kind, a: PinnedImage, b: PinnedImage, layer: int) -> Mapping[bytes, bytes]:
    """Return the xattrs of a layer in the tree's table; in the table of `changed`, b's layers come after a's."""
    if kind == "added":
        return origin_of(b.image, layer)
    before = len(a.image.layers)
    if kind == "removed" or layer < before:
        return origin_of(a.image, layer)
    return origin_of(b.image, layer - before)


def _lines(a: Image, b: Image) -> Iterator[str]:
    # Imported here: most mounts never compare images, and all of them start with this module.
    from regfs.images.comparing.image_differences import config_changes, file_changes
    from regfs.images.comparing.text import config_line, file_line

    for each in file_changes(a, b):
        yield f"{file_line(each)}\n"
    for setting in config_changes(a, b):
        yield f"{config_line(setting)}\n"
