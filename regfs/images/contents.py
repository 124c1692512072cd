"""What layers hold: passed once, indexed on disk, merged once; opened in milliseconds from then on.

A layer that was never passed is downloaded, verified and taken apart (passing.py); its index is named by its diff id,
so that images share it. The merged table of an image is named by the chain id of its layers. Both are immutable files:
whoever has one open goes on when it is dropped from the cache.
Used by image.py. Thread rule: any thread; one pass for each layer and one merge for each image, however many wait.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from cachetools import TTLCache

from regfs.errors import BadContent, CacheDamaged, CacheFailure, NotFound, RegistryTimeout
from regfs.images.fetching import twice_if_wrong
from regfs.images.own_process import beside_the_first, workers
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import layer_compression
from regfs.patience import current
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.row_tree import RowTree
from regfs.rootfs.single_layer import LayerTree
from regfs.stats import Stats
from regfs.store.content import Content, OpenContent
from regfs.store.layer_index import LayerIndex
from regfs.store.layer_store import LayerStore
from regfs.store.locks import touch
from regfs.store.merged_index import MergedIndex
from regfs.store.single_flight import Flights, Landed

if TYPE_CHECKING:
    from regfs.images.passing import Progress

log = logging.getLogger(__name__)

# More than there are workers wait for a turn, so that the next one begins at once.
_LAYERS_AT_ONCE = 8

_Flight = tuple[str, Digest, Digest, int]


class LayerBlob(NamedTuple):
    """A layer as an image names it. *chunks* yields its raw bytes from cache or registry; *origin* is for messages."""

    descriptor: Descriptor
    diff_id: Digest
    origin: str
    chunks: Callable[[], Iterator[bytes]]


class Passing(NamedTuple):
    """A pass under way, for whoever shows progress. *size* is the compressed layer's."""

    origin: str
    digest: Digest
    size: int
    progress: Progress


class Contents:
    """The layers and merged images of one cache."""

    def __init__(
        self, store: LayerStore, images: Path, *, flights: Flights, stats: Stats, refused_s: float = 5.0
    ) -> None:
        """*images* is the directory of the merged tables.

        A layer that proved wrong is tried again after *refused_s* seconds only, and not for every name below it.
        """
        self._store = store
        self._images = images
        self._flights = flights
        self._stats = stats
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(workers())
        self._passing: dict[_Flight, Passing] = {}
        self._indexes: WeakValueDictionary[Digest, LayerIndex] = WeakValueDictionary()
        # Where the layers in use came from.
        self._blobs: WeakKeyDictionary[LayerIndex, LayerBlob] = WeakKeyDictionary()
        self._merged: WeakValueDictionary[Digest, Rootfs] = WeakValueDictionary()
        self._refused: TTLCache[_Flight, tuple[type[BadContent], str]] = TTLCache(256, refused_s)

    def passing(self) -> list[Passing]:
        """Return the passes that are under way."""
        with self._lock:
            return list(self._passing.values())

    def layer_tree(self, blob: LayerBlob) -> RowTree:
        """Return the files of one layer alone. Waits for its pass; raises what that brings."""
        return LayerTree(self._index(blob), diff_id=blob.diff_id)

    def rootfs(self, blobs: Sequence[LayerBlob]) -> RowTree:
        """Return all layers merged. Waits for their passes and the merge; raises what these bring."""
        chain = chain_id([blob.diff_id for blob in blobs])
        known = self._merged.get(chain) or self._open_merged(chain, blobs)
        layers = tuple(_flight_of(blob) for blob in blobs)
        origin = blobs[-1].origin if blobs else str(chain)
        with _named(origin):
            return known or self._flights.run(
                ("rootfs", chain, layers), lambda: self._merge(chain, blobs), streams=True, parts=layers
            )

    def open(self, content: Content) -> OpenContent:
        """Return the opened *content* of a file of a tree that was given out.

        Where its file is gone (somebody deleted it, or it was damaged and dropped), the layers in use that miss files
        are passed again first: waits for that, and raises what it brings. Raises CacheFailure where that does not help.
        """
        try:
            return self._store.open_content(content)
        except CacheDamaged as failure:
            log.warning("%s", failure)
        for blob in list(self._blobs.values()):
            if not self._store.is_whole(blob.diff_id):
                # The open index stays the right one: the rows of a layer are a function of its bytes.
                self._flights.run(_flight_of(blob), partial(self._pass, blob), streams=True)
        return self._store.open_content(content)

    # Layers.

    def _index(self, blob: LayerBlob) -> LayerIndex:
        index = self._indexes.get(blob.diff_id) or self._open_index(blob)
        with _named(blob.origin):
            return index or self._flights.run(_flight_of(blob), lambda: self._pass(blob), streams=True)

    def _open_index(self, blob: LayerBlob) -> LayerIndex | None:
        try:
            index = self._store.open_index(blob.diff_id)
        except NotFound:
            return None
        except CacheDamaged as failure:  # any other failure says nothing about the file, and is the caller's
            log.warning("%s; the layer is passed again", failure)
            with suppress(CacheFailure):
                self._store.drop(blob.diff_id)
            return None
        index = self._indexes.setdefault(blob.diff_id, index)
        self._blobs[index] = blob
        return index

    def _pass(self, blob: LayerBlob, niceness: int = 0) -> LayerIndex:
        layer_compression(blob.descriptor.media_type)  # Unsupported, before anything is fetched
        with self._lock:
            refused = self._refused.get(_flight_of(blob))
        if refused is not None:
            raise refused[0](refused[1])
        try:
            twice_if_wrong(lambda: self._pass_once(blob, niceness))
        except BadContent as error:
            with self._lock:
                self._refused[_flight_of(blob)] = type(error), str(error)
            raise
        self._stats.count("layers.passes")
        self._stats.count("layers.bytes", blob.descriptor.size)
        self._store.settle_soon()
        index = self._open_index(blob)
        if index is None:
            raise CacheFailure(f"layer {blob.diff_id} vanished from the cache while it was opened")
        return index

    def _pass_once(self, blob: LayerBlob, niceness: int) -> None:
        # Loaded now, with all that reads archives: a mount of known images never needs it.
        from regfs.images.passing import LayerToPass, Progress, pass_layer

        descriptor = blob.descriptor
        progress = Progress()
        layer = LayerToPass(descriptor.digest, blob.diff_id, size=descriptor.size, media_type=descriptor.media_type)
        mine = current()
        mine.stalled_since = -math.inf  # no sign of life, and none is due: others of the image may be stalled
        with self._turns:
            mine.stalled_since = math.inf
            passing = Passing(blob.origin, descriptor.digest, descriptor.size, progress)
            with self._lock:
                self._passing[_flight_of(blob)] = passing
            try:
                chunks = mine.watch(blob.chunks())
                pass_layer(chunks, layer=layer, store=self._store, progress=progress, niceness=niceness)
            finally:
                with self._lock:
                    del self._passing[_flight_of(blob)]

    # Images.

    def _open_merged(self, chain: Digest, blobs: Sequence[LayerBlob]) -> Rootfs | None:
        """Return the merged image if its table and all its layers are here."""
        indexes = []
        for blob in blobs:
            index = self._indexes.get(blob.diff_id) or self._open_index(blob)
            if index is None:
                return None
            indexes.append(index)
        path = self._path(chain)
        try:
            merged = MergedIndex.open(path)
        except NotFound:
            return None
        except CacheDamaged as failure:
            log.warning("%s; the image is merged again", failure)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        touch(path)
        return self._merged.setdefault(chain, Rootfs(merged, indexes, diff_ids=[blob.diff_id for blob in blobs]))

    def _merge(self, chain: Digest, blobs: Sequence[LayerBlob]) -> Rootfs:
        from regfs.images.merging import merge_layers  # as above

        held = self._pass_all(blobs)  # while they are in use, no layer is evicted
        paths = [self._store.index_path(blob.diff_id) for blob in blobs]
        merge_layers(paths, self._path(chain), reserve=self._store.budget.reserve)
        self._stats.count("images.merges")
        rootfs = self._open_merged(chain, blobs)
        del held
        if rootfs is None:
            raise CacheFailure(f"the merged table of {blobs[-1].origin if blobs else chain} vanished from the cache")
        return rootfs

    def _pass_all(self, blobs: Sequence[LayerBlob]) -> list[LayerIndex]:
        """Return the indexes of all layers, passing those that were never passed, several at a time.

        The first error is raised at once; passes that are under way go on by themselves, for whoever asks next.
        """
        indexes: list[LayerIndex] = []
        missing: list[LayerBlob] = []
        under_way: set[Future[Landed[LayerIndex]]] = set()
        # The biggest first: it decides when all are done.
        for blob in sorted(blobs, key=lambda blob: -blob.descriptor.size):
            index = self._indexes.get(blob.diff_id) or self._open_index(blob)
            if index is None:
                missing.append(blob)
            else:
                indexes.append(index)
        niceness = beside_the_first([blob.descriptor.size for blob in missing])
        for number, blob in enumerate(missing):
            if len(under_way) >= _LAYERS_AT_ONCE:
                under_way = _landed(under_way, indexes)
            passing = partial(self._pass, blob, niceness if number else 0)
            under_way.add(self._flights.begin(_flight_of(blob), passing, streams=True))
        while under_way:
            under_way = _landed(under_way, indexes)
        return indexes

    def _path(self, chain: Digest) -> Path:
        return self._images / f"{chain.encoded}.merged"


@contextmanager
def _named(origin: str) -> Iterator[None]:
    """Let a wait that was too long say for which registry and repository it was: a flight knows digests alone."""
    try:
        yield
    except RegistryTimeout as timeout:
        raise RegistryTimeout(f"{origin}: {timeout}") from timeout


def _flight_of(blob: LayerBlob) -> _Flight:
    """Return what names a pass and its refusal.

    Not the diff id alone: another image may have the same files in a blob that is right, or say its right size.
    """
    return "layer", blob.diff_id, blob.descriptor.digest, blob.descriptor.size


def _landed(under_way: set[Future[Landed[LayerIndex]]], indexes: list[LayerIndex]) -> set[Future[Landed[LayerIndex]]]:
    """Wait for one flight at least, add what has landed to *indexes*, and return those that are still under way."""
    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
    indexes.extend(future.result().result() for future in done)
    return under_way


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """Return the identity of layers on top of each other. Source: image-spec, config.md, "Layer ChainID"."""
    if not diff_ids:
        return Digest.of(b"")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain
