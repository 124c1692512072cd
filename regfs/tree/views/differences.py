"""`.diff/A..B/` in a repository: what differs between two of its images.

    library/debian/.diff/
    └── 12.1..12.2/         A and B are tags, digests or @ and the beginning of one; opens, and is not listed
        └── summary         a line for each path and each setting of the configs, as `regfs diff` prints them

Used by namespace.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.images.comparing.image_differences import config_changes, file_changes
from regfs.images.comparing.text import config_line, file_line
from regfs.images.image import Image
from regfs.images.pinned_images import Images, PinnedImage
from regfs.images.repository import Repository
from regfs.model.attributes import Attributes
from regfs.model.names import Version, is_tag
from regfs.tree.node import FILE_MODE, FOREVER, Child, Found, directory_attributes
from regfs.tree.views.computed import ComputedFile
from regfs.tree.views.directory import Entry, ViewDirectory

NAME = ".diff"
_BETWEEN = ".."

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
        raise NotFound(f"{name[:300]!r} names no two images: TAG..TAG, or digests in their place")

    def _version(self, text: str) -> Version | None:
        return self.digest_named(text) or (Version(text) if is_tag(text) else None)

    def _pinned(self, version: Version) -> tuple[PinnedImage, float]:
        """Return an image, and for how many seconds the name means it."""
        digest = version.digest
        if version.short_digest is not None:
            digest = self.repository.manifests.digest_beginning(version.short_digest)
        if digest is not None:
            return self.images.pinned(self.repository, digest), FOREVER
        assert version.tag is not None
        resolved = self.repository.tags.resolve(version.tag)
        return self.images.pinned(self.repository, resolved.digest, resolved.media_type), resolved.valid_s


def _comparison(key: str, a: PinnedImage, b: PinnedImage) -> ViewDirectory:
    for pinned in (a, b):  # raises where the registry has no such manifest, or the policy allows none
        _ = pinned.image.document

    def summary(key: str) -> ComputedFile:
        return ComputedFile(key, lambda: "".join(_lines(a.image, b.image)), lambda: b.created_ns)

    return ViewDirectory(key, b, lambda: {"summary": Entry(FILE_MODE, summary)})


def _lines(a: Image, b: Image) -> Iterator[str]:
    for each in file_changes(a, b):
        yield f"{file_line(each)}\n"
    for setting in config_changes(a, b):
        yield f"{config_line(setting)}\n"
