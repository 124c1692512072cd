"""Images: from a manifest's digest to its layers and its merged root file system.

An Image is immutable, as all that its digest names; each of its parts is asked for when it is first needed and then
kept. An index is an image too, for the platform that was asked for. What the layers hold is contents.py's.
Used by the tree and the verbs of the command line. Thread rule: any thread; two that compute the same part get the
same value, and the network is asked once (the repository's flights).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

from cachetools import LRUCache

from regfs.errors import BadManifest, Unsupported
from regfs.images.contents import Contents, LayerBlob
from regfs.images.repository import Document, Repository
from regfs.model.digest import Digest
from regfs.model.document import DOCUMENT_LIMIT
from regfs.model.manifest import Descriptor, ImageConfig, Index, Manifest, entry_names, parse_config, parse_manifest
from regfs.model.media_types import INDEX_TYPES
from regfs.model.platform import Platform, choose
from regfs.rootfs.row_tree import RowTree

# An index may hold indexes (image-spec, image-index.md); one that goes deeper than this is made to harm.
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """Layer *number* of an image (0 is the base): its descriptor, the digest of its tar, and what made it."""

    number: int
    descriptor: Descriptor
    diff_id: Digest
    created_by: str


class Images:
    """The images that were touched lately; *platform* is the one that indexes are read for."""

    def __init__(self, contents: Contents, platform: Platform) -> None:
        self._contents = contents
        self._platform = platform
        self._lock = threading.Lock()
        self._images: LRUCache[tuple[Repository, Digest], Image] = LRUCache(256)

    def image(self, repository: Repository, digest: Digest, media_type: str = "") -> Image:
        """Return the image that *digest* names in *repository*; nothing is asked. *media_type*: where it is known."""
        with self._lock:
            image = self._images.get((repository, digest))
            if image is None:
                image = Image(
                    repository, digest, media_type=media_type, platform=self._platform, contents=self._contents
                )
                self._images[repository, digest] = image
            return image


class Image:
    """An image, or an index of images seen as the one for the wanted platform. Made by Images.image().

    Every property may block on the network the first time, and raise NotFound, AccessDenied, BadManifest,
    DigestMismatch, Unsupported, TooLarge, and what a network brings; the ones that need no network are marked.
    """

    def __init__(
        self, repository: Repository, digest: Digest, *, media_type: str, platform: Platform, contents: Contents
    ) -> None:
        self.repository = repository
        self.digest = digest
        self._media_type = media_type
        self._platform = platform
        self._contents = contents

    def __str__(self) -> str:
        return f"{self.repository.name}@{self.digest}"

    # cached_property computes outside of any lock: two threads may compute the same value, none waits for the other.

    @cached_property
    def document(self) -> Document:
        """The exact bytes of the index or manifest that the digest names."""
        return self.repository.document(self.digest, self._media_type)

    @cached_property
    def _parsed(self) -> Manifest | Index:
        return self._parse(self.document)

    @property
    def index(self) -> Index | None:
        """The index, where the digest names one."""
        return self._parsed if isinstance(self._parsed, Index) else None

    @cached_property
    def entries(self) -> dict[str, Descriptor]:
        """The manifests of the index by the names they have in the tree; none where the digest names a manifest."""
        return entry_names(self.index) if self.index is not None else {}

    @cached_property
    def manifest_descriptor(self) -> Descriptor:
        """Which manifest it is for the wanted platform. Raises NotFound, naming the platforms that there are."""
        if isinstance(self._parsed, Manifest):
            return Descriptor(self._parsed.media_type, self.digest, len(self.document.content))
        return self._choose(self._parsed)

    @cached_property
    def manifest_document(self) -> Document:
        """The exact bytes of that manifest."""
        chosen = self.manifest_descriptor
        return (
            self.document
            if chosen.digest == self.digest
            else self.repository.document(chosen.digest, chosen.media_type)
        )

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest for the wanted platform."""
        parsed = self._parse(self.manifest_document)
        if isinstance(parsed, Index):
            raise BadManifest(
                f"{self.repository.name}@{self.manifest_document.digest}: a manifest was named, an index came"
            )
        return parsed

    @cached_property
    def config_content(self) -> bytes:
        """The exact bytes of the config."""
        return self.repository.small_blob(self.manifest.config, at_most=DOCUMENT_LIMIT)

    @cached_property
    def config(self) -> ImageConfig:
        """The image's config. Raises Unsupported where the manifest is an artifact's."""
        if not self.manifest.is_image:
            raise Unsupported(f"{self}: its config is {self.manifest.config.media_type!r}, not an image's")
        return parse_config(self.config_content)

    @cached_property
    def layers(self) -> tuple[ImageLayer, ...]:
        """The layers, base first. Raises BadManifest where manifest and config disagree about them."""
        descriptors, diff_ids = self.manifest.layers, self.config.diff_ids
        if len(descriptors) != len(diff_ids):
            raise BadManifest(
                f"{self}: {len(descriptors)} layers in the manifest, {len(diff_ids)} diff ids in the config"
            )
        created_by = self.config.created_by()
        if len(created_by) != len(descriptors):  # hand-made configs; better no word than the wrong layer's
            created_by = ("",) * len(descriptors)
        return tuple(map(ImageLayer, range(len(descriptors)), descriptors, diff_ids, created_by))

    def rootfs(self) -> RowTree:
        """Return all layers merged, passing those that were never passed; waits until that is done.

        Raises what the layers bring: BadLayer, DigestMismatch, Unsupported, CacheFailure, and what a network brings.
        """
        return self._contents.rootfs([self._blob(layer) for layer in self.layers])

    def layer_tree(self, layer: ImageLayer) -> RowTree:
        """Return the files of one layer alone, whiteouts as they are stored. Waits and raises as rootfs() does."""
        return self._contents.layer_tree(self._blob(layer))

    def _blob(self, layer: ImageLayer) -> LayerBlob:
        repository, descriptor = self.repository, layer.descriptor
        return LayerBlob(descriptor, layer.diff_id, str(repository.name), lambda: repository.blob_chunks(descriptor))

    def _choose(self, index: Index) -> Descriptor:
        for _ in range(_MAX_DEPTH):
            chosen = choose(index.manifests, self._platform, platform_of=self._platform_of)
            if chosen.media_type not in INDEX_TYPES:
                return chosen
            parsed = self._parse(self.repository.document(chosen.digest, chosen.media_type))
            if isinstance(parsed, Manifest):
                return chosen
            index = parsed
        raise BadManifest(f"{self}: indexes within indexes, more than {_MAX_DEPTH} deep")

    def _platform_of(self, entry: Descriptor) -> Platform | None:
        """Return what the config of an entry without a platform says, None where it is no image."""
        parsed = self._parse(self.repository.document(entry.digest, entry.media_type))
        if isinstance(parsed, Index) or not parsed.is_image:
            return None
        return parse_config(self.repository.small_blob(parsed.config, at_most=DOCUMENT_LIMIT)).platform

    def _parse(self, document: Document) -> Manifest | Index:
        return parse_manifest(document.content, content_type=document.media_type)
