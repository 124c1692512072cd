"""Images: from a manifest's digest to its layers and its merged root file system.

An Image is immutable, like everything that its digest names; each part is fetched when it is first needed, and then
kept. An index is an image too, for the wanted platform. layer_cache.py has the contents of layers. Made by
pinned_images.py; used by the tree and the verbs of the command line. Thread rule: any thread; two threads that compute
the same part get the same value, by one request (the repository's flights).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from regfs.errors import BadContent, BadManifest, ManifestMissing, NotFound, TooLarge, Unsupported
from regfs.images.answers.manifests import Document
from regfs.images.artifact_files import artifact_layout
from regfs.images.computed_once import ComputedOnce
from regfs.images.external_tocs import external_table
from regfs.images.judging.judge import Judge
from regfs.images.layers.layer_cache import LayerCache
from regfs.images.layers.layer_ingests import LayerBlob, table_format_of
from regfs.images.repository import Repository
from regfs.images.soci_indexes import INDEX_DIGEST, may_have_ztoc, soci_format, ztocs_of_index, ztocs_of_referrers
from regfs.images.starts.start_prefetch import StartOf
from regfs.model.artifacts.layout import Layout
from regfs.model.artifacts.producers import has_names, has_titles
from regfs.model.dates import date_ns
from regfs.model.digest import Digest
from regfs.model.image_config import History, ImageConfig, parse_config
from regfs.model.manifest import Descriptor, Index, Manifest, entry_names, parse_manifest
from regfs.model.media_types import MANIFEST_TYPES, OCI_EMPTY, is_tar_layer, layer_compression
from regfs.model.platform import Platform, choose, require_files
from regfs.model.run_config import parse_run_config
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.layer_tree import LayerTotals
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content

if TYPE_CHECKING:
    from regfs.layers.formats.soci import Soci

log = logging.getLogger(__name__)

# Errors of the document itself, which reading it again would not change.
_UNREADABLE = (BadContent, TooLarge, Unsupported)
# An index may hold indexes (image-spec, image-index.md); a deeper one is hostile.
_MAX_DEPTH = 8


class ImageLayer(NamedTuple):
    """Layer *number* of an image (0 is the base): its descriptor, the digest of its tar, its build step, and its date.

    *created_ns* is in nanoseconds since 1970, 0 where it is not known.
    """

    number: int
    descriptor: Descriptor
    diff_id: Digest
    created_by: str
    created_ns: int


class Image:
    """An image, or an index, which stands for its image for the wanted platform. Made by Images.image().

    Every property may block on the network the first time, and raise NotFound, AccessDenied, BadManifest,
    DigestMismatch, Unsupported, TooLarge, and the errors of the network.
    """

    def __init__(
        self,
        repository: Repository,
        digest: Digest,
        *,
        media_type: str,
        announced: str,
        platform: Platform,
        contents: LayerCache,
        with_soci_v1: bool = False,
        judge: Judge | None = None,
    ) -> None:
        """*with_soci_v1*: use SOCI indexes that only refer to the image, too. *judge* may refuse to show it."""
        self.repository = repository
        self.digest = digest
        self._media_type = announced or media_type
        self._announced = announced
        self._platform = platform
        self.contents = contents
        self._with_soci_v1 = with_soci_v1
        self._judge = judge
        self.totals: dict[int, LayerTotals] = {}

    def __str__(self) -> str:
        return f"{self.repository.name}@{self.digest}"

    @property
    def wanted(self) -> Platform:
        """The platform whose image an index stands for."""
        return self._platform

    @ComputedOnce
    def document(self) -> Document:
        """The exact bytes of the index or manifest. Raises AccessDenied also if the policy refuses it."""
        if self._judge is not None:  # also for cached documents, and before anything else of the image is shown
            self._judge.judge(self.repository, self.digest)
        if self._announced:
            return self._named(self.digest, self._announced)
        return self.repository.manifests.document(self.digest, self._media_type)

    @ComputedOnce
    def _outcome(self) -> Manifest | Index | BadContent | TooLarge | Unsupported:
        document = self.document
        try:
            return _parse(document, self._announced)
        except _UNREADABLE as error:
            return _again(error)

    @property
    def _parsed(self) -> Manifest | Index:
        if isinstance(self._outcome, _UNREADABLE):
            raise _again(self._outcome)
        return self._outcome

    @property
    def is_readable(self) -> bool:
        """Whether regfs can parse the document as a manifest or an index. If not, only its bytes are shown."""
        return not isinstance(self._outcome, _UNREADABLE)

    @property
    def index(self) -> Index | None:
        """The index, if the digest names one, else None."""
        return self._parsed if isinstance(self._parsed, Index) else None

    @ComputedOnce
    def entries(self) -> dict[str, Descriptor]:
        """The manifests of the index by their names in the tree; empty if the digest names a manifest."""
        return entry_names(self.index) if self.index is not None else {}

    @ComputedOnce
    def manifest_descriptor(self) -> Descriptor:
        """The descriptor of the manifest for the wanted platform. Raises PlatformMissing, naming the available ones."""
        if isinstance(self._parsed, Manifest):
            return Descriptor(self._parsed.media_type, self.digest, len(self.document.content))
        return self._choose(self._parsed)

    @ComputedOnce
    def manifest_document(self) -> Document:
        """The exact bytes of that manifest."""
        chosen = self.manifest_descriptor
        return self.document if chosen.digest == self.digest else self._named(chosen.digest, chosen.media_type)

    @ComputedOnce
    def manifest(self) -> Manifest:
        """The manifest for the wanted platform."""
        document = self.manifest_document
        parsed = self._parsed if document is self.document else _parse(document, self.manifest_descriptor.media_type)
        if isinstance(parsed, Index):
            raise BadManifest(f"{self.repository.name}@{document.digest}: a manifest was named, an index came")
        return parsed

    @ComputedOnce
    def blobs(self) -> dict[str, Descriptor]:
        """The blobs that the manifest names, config and layers, by their digests."""
        return {str(descriptor.digest): descriptor for descriptor in (self.manifest.config, *self.manifest.layers)}

    @ComputedOnce
    def config_content(self) -> bytes:
        """The exact bytes of the config."""
        return self.repository.blobs.small(self.manifest.config, at_most=DOCUMENT_LIMIT)

    @ComputedOnce
    def config(self) -> ImageConfig:
        """The image's config. Raises Unsupported for an artifact."""
        if not self.manifest.is_image:
            raise Unsupported(f"{self}: its config is {self.manifest.config.media_type!r}, not an image's")
        config = parse_config(self.config_content)
        self.repository.manifests.keep_created({self.digest, self.manifest_descriptor.digest}, date_ns(config.created))
        return config

    @property
    def platform(self) -> Platform:
        """The platform that the image is built for: the config names it, or else the index."""
        there = self.config.platform
        return there if there.is_known else self.manifest_descriptor.platform or there

    @ComputedOnce
    def layers(self) -> tuple[ImageLayer, ...]:
        """The layers of files, base first. Raises BadManifest if manifest and config disagree about them.

        A layer that is not a tar (a WebAssembly module) may have no diff id in the config; the others are shown.
        """
        descriptors, diff_ids = self.manifest.layers, self.config.diff_ids
        if len(descriptors) != len(diff_ids):
            descriptors = tuple(layer for layer in descriptors if is_tar_layer(layer.media_type))
        if len(descriptors) != len(diff_ids):
            counts = f"{len(self.manifest.layers)} layers in the manifest, {len(diff_ids)} diff ids in the config"
            raise BadManifest(f"{self}: {counts}")
        steps = self.config.layer_steps()
        if len(steps) != len(descriptors):  # a hand-made config: better no command than another layer's
            steps = (History(),) * len(descriptors)
        created = date_ns(self.config.created)
        return tuple(
            ImageLayer(number, descriptor, diff_id, step.created_by, date_ns(step.created) or created)
            for number, (descriptor, diff_id, step) in enumerate(zip(descriptors, diff_ids, steps, strict=True))
        )

    @ComputedOnce
    def has_rootfs(self) -> bool:
        """Whether the layers are those of an image. ORAS can give files the type of a layer, and any config.

        Reads the config if each layer has a title, as ORAS writes it.
        """
        if not self.manifest.may_have_rootfs or not has_titles(self.manifest):
            return self.manifest.may_have_rootfs
        try:
            return bool(self.layers)
        except _UNREADABLE:
            return False

    @property
    def has_files(self) -> bool:
        """Whether the manifest has blobs that are not layers of an image."""
        some = any(layer.media_type != OCI_EMPTY for layer in self.manifest.layers)
        return some and (not self.has_rootfs or has_names(self.manifest))

    @ComputedOnce
    def files(self) -> Layout:
        """The names of an artifact's blobs, as the tool that made it writes them."""
        return artifact_layout(
            self.repository, self.manifest, origin=str(self), named_only=self.has_rootfs, note=self.contents.note
        )

    def rootfs(self) -> Rootfs:
        """Return all layers merged. Ingests missing layers, and blocks on the network for them.

        Raises BadLayer, DigestMismatch, Unsupported, CacheFailure, and the errors of the network.
        """
        for descriptor in self.manifest.layers:
            layer_compression(descriptor.media_type)  # Unsupported, before anything is fetched
        blobs = [self._blob(layer) for layer in self.layers]
        files = self.contents.rootfs(blobs)
        if any(blob.table_format is not None for blob in blobs):
            self.contents.starts.watch(self._start_of(files))
        return files

    def complete(self, *, compare: bool = False, stays: bool = False) -> None:
        """Fetch all missing bytes of the layers of rootfs(), so that no registry is needed. See LayerCache.complete.

        Blocks on the network; raises its errors, and CacheFailure. A file whose bytes are wrong stays unreadable.
        """
        self.contents.complete([self._blob(layer) for layer in self.layers], compare=compare, stays=stays)

    def fetch(self, contents: Iterable[Content], report: Callable[[str, int, int], None]) -> None:
        """Fetch the missing bytes of *contents*, which are files of rootfs(). See LayerCache.fetch."""
        self.contents.fetch(contents, report)

    def layer_blob(self, layer: ImageLayer) -> Iterator[bytes]:
        """Yield the bytes of the layer's blob, verified. See LayerCache.blob."""
        return self.contents.blob(self._blob(layer))

    def fetch_start(self, files: Rootfs, report: Callable[[str, int, int], None]) -> None:
        """Fetch what the image's start reads of *files*, the tree of rootfs(). See Starts.fetch."""
        self.contents.starts.fetch(self._start_of(files), files, report)

    def _start_of(self, files: Rootfs) -> StartOf:
        manifest, config = self.manifest_descriptor.digest, partial(parse_run_config, self.config_content)
        return StartOf(str(self), manifest, config, self.repository.starts, ref(files), files.diff_ids)

    def layer_tree(self, layer: ImageLayer) -> FileTree:
        """Return the files of one layer alone, whiteouts as they are stored. Waits and raises as rootfs() does."""
        return self.contents.layer_tree(self._blob(layer))

    def _blob(self, layer: ImageLayer) -> LayerBlob:
        repository, descriptor = self.repository, layer.descriptor
        require_files(self.platform, descriptor.media_type)
        return LayerBlob(
            descriptor,
            layer.diff_id,
            str(repository.name),
            lambda: repository.blobs.chunks(descriptor),
            partial(repository.blobs.part, descriptor),
            table_format_of(descriptor) or self._soci(layer),
            partial(external_table, repository, self.digest),
        )

    def _soci(self, layer: ImageLayer) -> Soci | None:
        """Return the zTOC of a layer, if a SOCI index of the image has one."""
        descriptor = layer.descriptor
        asks = INDEX_DIGEST in self.manifest.annotations or (
            self._with_soci_v1 and may_have_ztoc(descriptor) and not self.contents.has_names(layer.diff_id)
        )
        ztoc = self._ztocs.get(descriptor.digest) if asks else None
        return None if ztoc is None else soci_format(self.repository, ztoc)

    @ComputedOnce
    def _ztocs(self) -> Mapping[Digest, Descriptor]:
        """The zTOCs of the image's layers, by the layers' digests; empty if it has no usable SOCI index."""
        named = self.manifest.annotations.get(INDEX_DIGEST)
        if named is not None:
            return ztocs_of_index(self.repository, named, what=str(self))
        return ztocs_of_referrers(self.repository, self.manifest_descriptor.digest)

    def _choose(self, index: Index) -> Descriptor:
        for _ in range(_MAX_DEPTH):
            chosen = choose(index.manifests, self._platform, platform_of=self._platform_of)
            if chosen.media_type in MANIFEST_TYPES:
                return chosen
            parsed = self._entry(chosen)
            if isinstance(parsed, Manifest):
                return chosen
            index = parsed
        raise BadManifest(f"{self}: indexes within indexes, more than {_MAX_DEPTH} deep")

    def _platform_of(self, entry: Descriptor) -> Platform | None:
        """Return the platform in the config of an entry that has none; None if it is not an image, or unavailable."""
        try:
            parsed = self._entry(entry)
            if isinstance(parsed, Index) or not parsed.is_image:
                return None
            return parse_config(self.repository.blobs.small(parsed.config, at_most=DOCUMENT_LIMIT)).platform
        except (NotFound, *_UNREADABLE) as error:
            # One bad entry must not make the others unusable.
            log.info("%s: the entry %s is skipped: %s", self, entry.digest, error)
            return None

    def _entry(self, entry: Descriptor) -> Manifest | Index:
        """Return the image or index of an entry of an index."""
        return _parse(self._named(entry.digest, entry.media_type), entry.media_type)

    def _named(self, digest: Digest, media_type: str) -> Document:
        """Return a document that an index names. Raises ManifestMissing if the registry lacks it."""
        try:
            return self.repository.manifests.document(digest, media_type)
        except NotFound as missing:
            raise ManifestMissing(
                f"{self}: an index names the manifest {digest}, which the registry does not have (any more): {missing}"
            ) from missing


def _parse(document: Document, announced: str = "") -> Manifest | Index:
    return parse_manifest(document.content, content_type=document.media_type, announced=announced)


def _again(error: BadContent | TooLarge | Unsupported) -> BadContent | TooLarge | Unsupported:
    """Return the same error without its traceback, whose frames would keep the document in memory."""
    return type(error)(str(error))
