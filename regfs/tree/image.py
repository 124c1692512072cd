"""`…/12/` and `…/sha256:…/`: an image, or an index seen as the image for the wanted platform.

    library/debian/12/
    ├── digest           what the tag points to
    ├── index.json       the index, where it is one
    ├── manifest.json    the manifest for the platform, and its config
    ├── config.json
    ├── manifests/       linux-amd64/ linux-arm64-v8/ … each a directory like this one
    ├── blobs/  layers/
    └── rootfs/          all layers merged

What a platform or an artifact does not have is not listed: an index without the wanted platform has `digest`,
`index.json` and `manifests/`, an artifact has no `layers/` and no `rootfs/`. Any thread.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.images.image import Image, Images
from regfs.model.attributes import Attributes
from regfs.model.manifest import Index
from regfs.tree.blobs import BlobsDirectory
from regfs.tree.layers import LayersDirectory
from regfs.tree.node import (
    DIRECTORY_MODE,
    FILE_MODE,
    FOREVER,
    Child,
    FetchedFile,
    Found,
    Node,
    RowsDirectory,
    directory_attributes,
    text_file,
)

_OF_ANY = {"digest": FILE_MODE}
_OF_AN_INDEX = {"index.json": FILE_MODE, "manifests": DIRECTORY_MODE}
_OF_A_MANIFEST = {"manifest.json": FILE_MODE, "config.json": FILE_MODE, "blobs": DIRECTORY_MODE}
_OF_AN_IMAGE = {"layers": DIRECTORY_MODE, "rootfs": stat.S_IFDIR | 0o755}

NAMES = frozenset({**_OF_ANY, **_OF_AN_INDEX, **_OF_A_MANIFEST, **_OF_AN_IMAGE})
"""All names that an image's directory may have."""


@dataclass(frozen=True, slots=True)
class ImageDirectory:
    """The directory of an image."""

    key: str
    image: Image
    images: Images

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return one of the parts. Blocks on the network for the documents that decide it, for no content."""
        make = _PARTS.get(name)
        if make is None:
            raise NotFound(f"an image has no {name[:300]!r}; it has {', '.join(sorted(NAMES))}")
        return Found(make(self, f"{self.key}/{name}"), FOREVER)

    def children(self) -> list[Child]:
        """Return the parts that this image has."""
        names = dict(_OF_ANY)
        if self.image.index is not None:
            names |= _OF_AN_INDEX
        if self._has_manifest():
            names |= _OF_A_MANIFEST
            if self.image.manifest.is_image:
                names |= _OF_AN_IMAGE
        return [Child(name, mode) for name, mode in names.items()]

    def _has_manifest(self) -> bool:
        try:
            return self.image.manifest is not None
        except NotFound:
            return False


@dataclass(frozen=True, slots=True)
class ManifestsDirectory:
    """`manifests/`: the entries of an index, by platform or by digest."""

    key: str
    image: Image
    images: Images

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return the entry of that platform or digest."""
        index = _index_of(self.image)
        entry = self.image.entries.get(name) or next((e for e in index.manifests if str(e.digest) == name), None)
        if entry is None:
            raise NotFound(f"the index {self.image} has no entry {name[:300]!r}")
        image = self.images.image(self.image.repository, entry.digest, entry.media_type)
        return Found(ImageDirectory(f"{self.key}/{name}", image, self.images), FOREVER)

    def children(self) -> list[Child]:
        """Return the entries' names."""
        return [Child(name, DIRECTORY_MODE) for name in self.image.entries]


def _index_of(image: Image) -> Index:
    index = image.index
    if index is None:
        raise NotFound(f"{image} is a manifest, not an index")
    return index


def _digest(directory: ImageDirectory, key: str) -> Node:
    return text_file(key, str(directory.image.digest))


def _index(directory: ImageDirectory, key: str) -> Node:
    _index_of(directory.image)
    content = directory.image.document.content
    return FetchedFile(key, len(content), lambda: content)


def _manifests(directory: ImageDirectory, key: str) -> Node:
    _index_of(directory.image)
    return ManifestsDirectory(key, directory.image, directory.images)


def _manifest(directory: ImageDirectory, key: str) -> Node:
    image = directory.image
    return FetchedFile(key, image.manifest_descriptor.size, lambda: image.manifest_document.content)


def _config(directory: ImageDirectory, key: str) -> Node:
    image = directory.image
    return FetchedFile(key, image.manifest.config.size, lambda: image.config_content)


def _blobs(directory: ImageDirectory, key: str) -> Node:
    image = directory.image
    if not image.manifest:  # raises where there is none for the platform
        raise NotFound(f"{image} has no manifest")
    return BlobsDirectory(key, image)


def _layers(directory: ImageDirectory, key: str) -> Node:
    _image_of(directory)
    return LayersDirectory(key, directory.image)


def _rootfs(directory: ImageDirectory, key: str) -> Node:
    image = _image_of(directory)
    return RowsDirectory(key, str(image.manifest_descriptor.digest), image.rootfs)


def _image_of(directory: ImageDirectory) -> Image:
    image = directory.image
    if not image.manifest.is_image:
        raise NotFound(f"{image} is an artifact ({image.manifest.config.media_type}): it has no layers of files")
    return image


_PARTS: dict[str, Callable[[ImageDirectory, str], Node]] = {
    "digest": _digest,
    "index.json": _index,
    "manifests": _manifests,
    "manifest.json": _manifest,
    "config.json": _config,
    "blobs": _blobs,
    "layers": _layers,
    "rootfs": _rootfs,
}
