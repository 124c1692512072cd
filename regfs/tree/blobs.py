"""`…/blobs/`: the blobs that an image names, as exact bytes.

    library/debian/12/blobs/
    ├── sha256:8a1e25ce7c4f75e372e9884f8f7b1bedcfe4a7a7d452eb4b0a1c7477c9a90345      the config
    └── sha256:…                                                                     each layer

`sha256-…` opens too: many programs cannot have a colon in a path. Sizes come from the descriptors, so a listing fetches
nothing. When a blob is opened, all of it is fetched and verified; reads come from the cache. What that cannot take is
fetched again when it is read (images/layers/unkept_blobs.py). Used by image.py. Any thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from regfs.errors import CacheFailure, DigestMismatch, NotFound
from regfs.images.pinned_images import PinnedImage
from regfs.images.repository import Repository
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.store.layers.content import OpenContent
from regfs.tree.directory_parts import DirectoryOfImage
from regfs.tree.node import FILE_MODE, FOREVER, Child, Dated, Found, OpenFile, children_of


@dataclass(frozen=True, slots=True)
class BlobsDirectory(DirectoryOfImage):
    """The directory of an image's blobs."""

    def lookup(self, name: str) -> Found:
        """Return the blob with the digest *name*. Raises NotFound if the image does not name it."""
        image = self.pinned.image
        descriptor = image.blobs.get(name) or image.blobs.get(name.replace("-", ":", 1))
        if descriptor is None:
            raise NotFound(f"{image} names no blob {name[:300]!r}")
        return Found(BlobFile(f"{self.key}/{name}", image.repository, descriptor, self.pinned), FOREVER)

    def children(self) -> list[Child]:
        """Return the digests of config and layers."""
        return children_of(self.key, dict.fromkeys(self.pinned.image.blobs, FILE_MODE))


@dataclass(frozen=True, slots=True)
class BlobFile(Dated):
    """One blob."""

    key: str
    repository: Repository
    descriptor: Descriptor
    pinned: PinnedImage

    @property
    def digest(self) -> Digest:
        """The blob's digest."""
        return self.descriptor.digest

    def attributes(self) -> Attributes:
        """Return the file's attributes, its size from the descriptor."""
        return Attributes(FILE_MODE, self.descriptor.size, mtime_ns=self.pinned.created_ns)

    def open(self) -> OpenFile:
        """Fetch and verify the blob, unless it is in the cache, and open it. Blocks on the network."""
        try:
            fd = self._open_file()
        except CacheFailure as failure:
            return self.pinned.image.contents.unkept_blobs.open(self.repository, self.descriptor, failure)
        content = OpenContent(fd, self.descriptor.size)
        size = os.fstat(fd).st_size
        if size != self.descriptor.size:
            content.close()
            raise DigestMismatch(f"{self.digest} has {size} bytes, its descriptor says {self.descriptor.size}")
        return content

    def _open_file(self) -> int:
        path = self.repository.blobs.file(self.descriptor)
        if not path.exists():  # evicted a moment ago: fetch it once more
            path = self.repository.blobs.file(self.descriptor)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise CacheFailure(f"{path}: {error.strerror}") from error
