"""Finds the images that a cache holds, by the names that were looked up: their documents, and the layers in the cache.

    references.sqlite → manifests and indexes among the blobs → configs → diff ids → layers and merged tables

Times of last use stay unchanged, and no request is made. Used by the verbs of the cache.
Thread rule: a function; files may come and go while it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from regfs.errors import BadContent, InvalidName, TooLarge, Unsupported
from regfs.images.layers.layer_ingests import stored_by_table, without
from regfs.images.soci_indexes import INDEX_DIGEST
from regfs.layers.formats.format import Format
from regfs.layers.formats.recognise import recognise
from regfs.layers.formats.soci import Soci, ztocs_of
from regfs.model.attestations.kinds import type_of
from regfs.model.chain_id import chain_id
from regfs.model.digest import Digest
from regfs.model.image_config import ImageConfig, parse_config
from regfs.model.manifest import Index, Manifest, parse_manifest
from regfs.store.blobs import BlobStore
from regfs.store.eviction.eviction import Unit, units_of
from regfs.store.eviction.inventory import Inventory, take_inventory
from regfs.store.files.failures import failures_of
from regfs.store.layers.layer_store import LayerStore
from regfs.store.references.named_digests import NamedDigest, named_digests

_UNREADABLE = (BadContent, TooLarge, Unsupported)


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image or artifact of which the cache has a part. Sizes are bytes on the disk; *used_ns* is since 1970.

    *names* are full references; *digests* are those of its manifest and of the indexes that lead to it. *artifact_type*
    is "" for an image. *layers_here* counts its layers in the cache. *unique_size* is the size of the parts that no
    other image needs. *guards* are the files by which eviction.py identifies its parts.
    """

    digest: Digest
    names: tuple[str, ...]
    digests: frozenset[Digest]
    artifact_type: str
    platform: str
    layers: int
    layers_here: int
    size: int
    unique_size: int
    used_ns: int
    guards: frozenset[Path]


class _ByTable(NamedTuple):
    """The store's key of a layer that has a table of contents, and the names that are hidden in it."""

    stored_as: Digest
    hidden: frozenset[bytes]


@dataclass(slots=True)
class _Found:
    """A manifest among the blobs, with what it names."""

    manifest: Manifest
    config: ImageConfig | None
    by_table: Mapping[Digest, _ByTable]
    """The layers that have a table of contents, by their blobs' digests."""
    names: dict[str, None] = field(default_factory=dict)
    digests: set[Digest] = field(default_factory=set)


def cached_images(root: Path) -> list[CachedImage]:
    """Return the images in the cache at *root*, the most recently used first. Raises CacheFailure."""
    with failures_of(root):
        inventory = take_inventory(root)
        found = _manifests(root)
        return sorted(_weighed(root, inventory, found), key=lambda image: -image.used_ns)


def unnamed_size(root: Path, images: Sequence[CachedImage]) -> int:
    """Return the bytes in the cache at *root* that none of *images* needs. Raises CacheFailure."""
    with failures_of(root):
        inventory = take_inventory(root)
    guards = {path for image in images for path in image.guards}
    held = [unit for unit in units_of(inventory) if unit.guard.path in guards]
    return max(0, inventory.size - sum(unit.size for unit in held))


def _manifests(root: Path) -> dict[Digest, _Found]:
    """Return the manifests in the cache that known names lead to."""
    blobs = BlobStore(root / "blobs")
    found: dict[Digest, _Found] = {}
    named = list(named_digests(root / "references.sqlite"))
    with_tag = {(each.repository, each.digest) for each in named if each.tag is not None}
    for each in named:
        if each.tag is None and (each.repository, each.digest) in with_tag:
            continue
        for digest, manifest in _readable(blobs, each.digest):
            image = found.get(digest)
            if image is None:
                image = found[digest] = _Found(manifest, _config(blobs, manifest), _by_table(blobs, manifest))
            image.names[_name(each)] = None
            image.digests |= {digest, each.digest}
    for image in found.values():
        _drop_names_by_digest(image)
    return found


def _name(named: NamedDigest) -> str:
    return f"{named.repository}:{named.tag}" if named.tag is not None else f"{named.repository}@{named.digest}"


def _drop_names_by_digest(image: _Found) -> None:
    """Drop `repository@sha256:…` if a tag of that repository leads to the image too."""
    tagged = {name.rpartition(":")[0] for name in image.names if "@" not in name}
    image.names = {name: None for name in image.names if name.partition("@")[0] not in tagged or "@" not in name}


def _readable(blobs: BlobStore, digest: Digest) -> Iterator[tuple[Digest, Manifest]]:
    """Yield the manifest *digest*, or the cached manifests of the index *digest*."""
    document = _document(blobs, digest)
    if isinstance(document, Manifest):
        yield digest, document
    elif isinstance(document, Index):
        for entry in document.manifests:
            below = _document(blobs, entry.digest)
            if isinstance(below, Manifest):
                yield entry.digest, below


def _document(blobs: BlobStore, digest: Digest) -> Manifest | Index | None:
    content = _content(blobs, digest)
    try:
        return None if content is None else parse_manifest(content, content_type="")
    except _UNREADABLE:
        return None


def _config(blobs: BlobStore, manifest: Manifest) -> ImageConfig | None:
    content = _content(blobs, manifest.config.digest) if manifest.is_image else None
    try:
        return None if content is None else parse_config(content)
    except _UNREADABLE:
        return None


def _by_table(blobs: BlobStore, manifest: Manifest) -> dict[Digest, _ByTable]:
    """Return the layers of *manifest* that have a table, by their blobs' digests."""
    index = None
    with suppress(KeyError, InvalidName):
        index = _document(blobs, Digest.parse(manifest.annotations[INDEX_DIGEST]))
    ztocs = ztocs_of(index) if isinstance(index, Manifest) else {}
    found: dict[Digest, _ByTable] = {}
    for layer in manifest.layers:
        table_format: Format | Soci | None = recognise(layer)
        if table_format is None and layer.digest in ztocs:
            table_format = Soci(ztocs[layer.digest].digest, bytes)
        if table_format is not None:
            found[layer.digest] = _ByTable(stored_by_table(layer, table_format), table_format.hidden(layer))
    return found


def _content(blobs: BlobStore, digest: Digest) -> bytes | None:
    """Return a small blob's bytes if they are cached and right. BlobStore.load() would count as a use of the blob."""
    try:
        content = blobs.path(digest).read_bytes()
        return content if digest.matches(content) else None
    except (OSError, Unsupported):
        return None


def _weighed(root: Path, inventory: Inventory, found: Mapping[Digest, _Found]) -> Iterator[CachedImage]:
    units = {unit.guard.path: unit for unit in units_of(inventory)}
    guards = {digest: _guards(root, digest, image, units) for digest, image in found.items()}
    owners = Counter(path for paths in guards.values() for path in paths)
    for digest, image in found.items():
        own = {path for path in guards[digest] if owners[path] == 1}
        yield CachedImage(
            digest,
            tuple(sorted(image.names)),
            frozenset(image.digests),
            "" if image.manifest.may_have_rootfs else type_of(image.manifest),
            str(image.config.platform) if image.config is not None else "",
            len(image.manifest.layers),
            _layers_here(root, image, guards[digest]),
            sum(units[path].size for path in guards[digest]),
            sum(units[path].size for path in own),
            max(units[path].guard.used_ns for path in guards[digest]),
            frozenset(guards[digest]),
        )


def _guards(root: Path, digest: Digest, image: _Found, units: Mapping[Path, Unit]) -> set[Path]:
    """Return the guards of the parts of *image* that the cache has."""
    blobs, layers = BlobStore(root / "blobs"), LayerStore(root)
    digests = [*image.digests, digest, image.manifest.config.digest, *(each.digest for each in image.manifest.layers)]
    paths = {blobs.path(each) for each in digests}
    if image.config is not None:
        diff_ids = image.config.diff_ids
        by_table = {
            blob: table.stored_as
            for blob, table in image.by_table.items()
            if layers.index_path(table.stored_as) in units
        }
        blobs_of = [(layer.digest, diff_id) for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=False)]
        whole = [
            without(diff_id, image.by_table[blob].hidden) if blob in image.by_table else diff_id
            for blob, diff_id in blobs_of
        ]
        shown_as = [by_table.get(blob, diff_id) for (blob, _), diff_id in zip(blobs_of, whole, strict=True)]
        paths |= {layers.index_path(each) for each in [*diff_ids, *by_table.values()]}
        paths |= {root / "images" / f"{chain_id(ids).encoded}.merged" for ids in (diff_ids, whole, shown_as)}
    return {path for path in paths if path in units}


def _layers_here(root: Path, image: _Found, guards: set[Path]) -> int:
    """Return how many layers can be read without a registry: ingested ones, and those whose blobs are cached."""
    blobs, layers = BlobStore(root / "blobs"), LayerStore(root)
    diff_ids: Sequence[Digest | None] = image.config.diff_ids if image.config is not None else ()
    diff_ids = [*diff_ids, *[None] * len(image.manifest.layers)]
    return sum(
        blobs.path(layer.digest) in guards
        or (diff_id is not None and layers.is_ingested(diff_id))
        or (layer.digest in image.by_table and layers.is_complete(image.by_table[layer.digest].stored_as))
        for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=False)
    )
