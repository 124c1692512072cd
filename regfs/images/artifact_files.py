"""The files of artifacts, as `files/` shows them: blobs of a manifest that are not layers of an image.

Names and sizes come from the manifest, and for the few tools that write paths into the config, from the config: no
other blob is fetched for them. A tar is ingested like a layer, into an index and a data file that are named by its diff
id. Few artifacts name the diff id; otherwise the whole blob is fetched and inflated once to compute it. Used by
image.py. Thread rule: any thread; one computation for each blob, for any number of waiting threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from regfs.errors import BadContent, CacheFailure, TooLarge, Unsupported
from regfs.images.layers.layer_cache import LayerCache
from regfs.images.layers.layer_ingests import LayerBlob
from regfs.images.repository import Repository
from regfs.model.artifacts.layout import ArtifactFile, Layout
from regfs.model.artifacts.producers import layout_of, wants_config
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.process.waiting.deadline import current
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.layer_tree import LayerTree

log = logging.getLogger(__name__)

# The bytes of an archive, not its media type, decide its compression (layers/compression/detection.py).
_ARCHIVE = "application/vnd.oci.image.layer.v1.tar"
_CHUNK = 1 << 18
_BLOCK = 1 << 20
_LEAST_ROOM = 1 << 30
# What the cache cannot take may be this many times as big unpacked.
_MOST_INFLATED = 64


def artifact_layout(
    repository: Repository, manifest: Manifest, *, origin: str, named_only: bool, note: Callable[[str], None]
) -> Layout:
    """Return the files of *manifest*; *note* is called with a sentence for each name that had to be changed.

    *origin* names the artifact in messages. Blocks on the network if names are in the config, and raises its errors.
    """
    config = b""
    if wants_config(manifest):
        try:
            config = repository.blobs.small(manifest.config, at_most=DOCUMENT_LIMIT)
        except (BadContent, TooLarge, Unsupported) as reason:
            note(f"{origin}: the names of its files are in a config that cannot be read: {reason}")
    layout = layout_of(manifest, config, named_only=named_only)
    for remark in layout.remarks:
        note(f"{origin}: files/: {remark}")
    return layout


def archive_tree(
    repository: Repository, file: ArtifactFile, contents: LayerCache, *, origin: str, note: Callable[[str], None]
) -> FileTree:
    """Return the tree of the tar *file*, or of the directory in it that is to be shown.

    Fetches and ingests the tar unless the cache has it: blocks on the network, and raises BadLayer, DigestMismatch,
    Unsupported, TooLarge, CacheFailure, and the errors of the network.
    """
    descriptor = replace(file.descriptor, media_type=_ARCHIVE, annotations={})
    diff_id = file.diff_id or _diff_id(repository, descriptor, contents, origin)
    blobs = repository.blobs
    blob = LayerBlob(
        descriptor, diff_id, str(repository.name), partial(blobs.chunks, descriptor), partial(blobs.part, descriptor)
    )
    tree = contents.layer_tree(blob)
    if not isinstance(tree, LayerTree):
        return tree
    narrowed, others = tree.narrowed([part.encode() for part in file.inside])
    if others:
        note(f"{origin}: files/: the tar {descriptor.digest} has more than {'/'.join(file.inside)!r}; all is shown")
    return narrowed


def _diff_id(repository: Repository, descriptor: Descriptor, contents: LayerCache, origin: str) -> Digest:
    """Return the digest of the tar inside the blob. The whole blob is fetched unless the digest is known."""
    known = contents.diff_ids.find(descriptor.digest)
    if known is not None:
        return known

    def measure() -> Digest:
        try:
            path = repository.blobs.file(descriptor)
            chunks, room = _chunks_of(path), _free_bytes(path)
        except CacheFailure as failure:
            log.info("%s: %s", origin, failure)
            chunks, room = repository.blobs.chunks(descriptor), _MOST_INFLATED * descriptor.size
        diff_id = _measured(chunks, descriptor, origin, most=max(_LEAST_ROOM, room))
        contents.diff_ids.keep(descriptor.digest, diff_id)
        return diff_id

    return contents.flights.run(("diff id", descriptor.digest, descriptor.size), measure, streams=True)


def _measured(chunks: Iterator[bytes], descriptor: Descriptor, origin: str, *, most: int) -> Digest:
    # Imported here: the readers of archives load slowly, and most mounts never need them.
    from regfs.layers.compression.archive_stream import open_archive

    archive = open_archive(current().watch(chunks))
    hasher, block, inflated = hashlib.sha256(), memoryview(bytearray(_BLOCK)), 0
    try:
        while size := archive.readinto(block):
            hasher.update(block[:size])
            inflated += size
            if inflated > most:
                raise TooLarge(f"{descriptor.digest} has more than {most} bytes unpacked: there is no room for them")
    except (BadContent, TooLarge, Unsupported) as error:
        raise type(error)(f"{origin}: {error}") from error
    return Digest("sha256", hasher.hexdigest())


def _chunks_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise CacheFailure(f"{path}: {error.strerror}") from error


def _free_bytes(path: Path) -> int:
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise CacheFailure(f"{path}: {error.strerror}") from error
    return status.f_bavail * status.f_frsize
