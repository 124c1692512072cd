"""The layers and merged images of a cache: ingested once, merged once, and opened in milliseconds from then on.

Names and bytes are separate: layer_indexes.py has the indexes, with the names of a layer; `open(content)` opens the
bytes of one file. A merge reads indexes only. The index of a plain layer comes from an ingest, which downloads,
verifies and unpacks the layer (layer_ingests.py). It is named by the diff id, so that images share it; the merged table
of an image is named by the chain id of its layers. All these files are immutable: an open one stays readable after it
is dropped from the cache. Used by image.py. Thread rule: any thread; one ingest for each layer and one merge for each
image, for any number of waiting threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from regfs.errors import CacheDamaged, CacheFailure, CacheFull, NotFound, WorkStalled
from regfs.images.layers.layer_contents import LayerContents
from regfs.images.layers.layer_indexes import LayerIndexes, NeedsWhole, named
from regfs.images.layers.layer_ingests import LayerBlob, LayerIngest, LayerIngests
from regfs.images.layers.merges import Merges
from regfs.images.layers.partial_layers import PartialLayers
from regfs.images.layers.plain_parts import PlainParts
from regfs.images.layers.temporary_cache import MakeOverflow, Overflow
from regfs.images.layers.unkept_blobs import UnkeptBlobs
from regfs.images.lazy.background_fetch import ONLY_WHAT_IS_READ, BackgroundFetch, Fetching
from regfs.images.starts.start_prefetch import Starts
from regfs.images.workers.own_process import NICE_BESIDE_THE_BIGGEST
from regfs.images.workers.shared_work import STALL_S
from regfs.model.chain_id import chain_id
from regfs.model.digest import Digest
from regfs.process.waiting.single_flight import Flights, Landed
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.layer_tree import LayerTree
from regfs.rootfs.rootfs import Rootfs
from regfs.store.files.cached_files import take_away
from regfs.store.files.directories import twice_if_deleted
from regfs.store.images.merged_table import MergedTable, is_sound
from regfs.store.images.verdicts import read_verdicts, verdicts_path, write_verdicts
from regfs.store.layers.content import Content, OpenContent
from regfs.store.layers.diff_ids import DiffIds
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.file_locks import touch
from regfs.store.locks.work_locks import LOCKS, WorkLocks
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

# More flights than workers, so that the next ingest begins as soon as a worker is free.
_LAYERS_AT_ONCE = 8
_LOOK_S = 1.0
REFUSED_S = 5.0


class LayerCache:
    """The layers and merged images of one cache."""

    def __init__(
        self,
        store: LayerStore,
        images: Path,
        *,
        flights: Flights,
        stats: Stats,
        refused_s: float = REFUSED_S,
        stall_s: float = STALL_S,
        note: Callable[[str], None] = log.warning,
        fetching: Fetching = ONLY_WHAT_IS_READ,
        make_overflow: MakeOverflow | None = None,
        lender: LayerStore | None = None,
    ) -> None:
        """*images* is the directory of the merged tables.

        *make_overflow* makes a temporary cache for images of which this one cannot take the names. A temporary cache
        copies the names that *lender* has.

        A layer that proved wrong is tried again only after *refused_s* seconds: look-ups of names below it come often.
        An ingest or merge without progress for *stall_s* seconds is ended. *note* is called with messages for users.
        """
        self._store = self.store = store
        self._flights = self.flights = flights
        self.note = note
        self.diff_ids = DiffIds(store.root / "diff-ids.sqlite")
        self._stall_s = stall_s
        self._locks = locks = WorkLocks(store.root / LOCKS)
        self._ingests = LayerIngests(store, locks, stats=stats, note=note, refused_s=refused_s, stall_s=stall_s)
        self._chunks = PartialLayers(store, flights=flights, stats=stats, note=note, rest_from=fetching.rest_from)
        self._indexes = LayerIndexes(store, self._ingests, self._chunks, flights=flights, note=note, lender=lender)
        self._overflow = Overflow(make_overflow, store, self._indexes)
        self._background = BackgroundFetch() if fetching.background and store.budget.limits.size != 0 else None
        self.starts = Starts(self, flights=flights, stats=stats)
        plain = PlainParts(
            store, flights=flights, stats=stats, foreground=self._chunks.foreground, note=note,
            rest_from=fetching.rest_from,
        )  # fmt: skip
        foreground = self._chunks.foreground
        self.unkept_blobs = UnkeptBlobs(store, flights=flights, stats=stats, foreground=foreground, note=note)
        self._contents = LayerContents(store, self._indexes, self._chunks, plain, reading=self.starts)
        self._merges = Merges(store, images, locks, stats=stats, stall_s=stall_s, note=note)
        self._merged: WeakValueDictionary[Digest, Rootfs] = WeakValueDictionary()

    def has_names(self, layer: Digest) -> bool:
        """Whether the cache has the index of *layer*, a diff id or the LayerBlob.stored_as of a lazy layer."""
        return self._store.has_names(layer)

    def under_way(self) -> list[LayerIngest]:
        """Return the running ingests."""
        return self._ingests.under_way()

    def stop(self) -> None:
        """End the background fetches, and let other processes begin what this one has not finished."""
        self._overflow.stop()
        self._locks.abandon()
        self.starts.stop()
        self.diff_ids.close()
        if self._background is not None:
            self._background.stop()

    def layer_tree(self, blob: LayerBlob) -> FileTree:
        """Return the tree of one layer alone. Waits for its ingest, and raises its errors."""
        return self._overflow.run(blob.key, lambda: self._layer_tree(blob), lambda cache: cache.layer_tree(blob))

    def _layer_tree(self, blob: LayerBlob) -> FileTree:
        blob = self._indexes.as_it_is_here(blob)
        self._want([blob])
        try:
            return LayerTree(self._indexes.index(blob), diff_id=blob.stored_as, hidden=blob.hidden)
        except NeedsWhole:
            blob = blob.whole()
            return LayerTree(self._indexes.index(blob), diff_id=blob.diff_id, hidden=blob.hidden)

    def rootfs(self, blobs: Sequence[LayerBlob]) -> Rootfs:
        """Return all layers merged. Waits for their ingests and the merge, and raises their errors."""
        key = tuple(blob.key for blob in blobs)
        return self._overflow.run(key, lambda: self._rootfs(blobs), lambda cache: cache.rootfs(blobs))

    def _rootfs(self, blobs: Sequence[LayerBlob]) -> Rootfs:
        for _ in blobs:
            try:
                return self._merged_tree([self._indexes.as_it_is_here(blob) for blob in blobs])
            except NeedsWhole as reason:
                log.debug("%s", reason)
        return self._merged_tree([self._indexes.as_it_is_here(blob) for blob in blobs])

    def _merged_tree(self, blobs: Sequence[LayerBlob]) -> Rootfs:
        chain = chain_id([blob.shown_as for blob in blobs])
        known = self._merged.get(chain) or self._open_merged(chain, blobs)
        layers = tuple(blob.key for blob in blobs)
        origin = blobs[-1].origin if blobs else str(chain)
        with named(origin):
            tree = known or self._flights.run(
                ("rootfs", chain, layers), lambda: self._merge(chain, blobs), streams=True, parts=layers
            )
        self._want(blobs)
        return tree

    def open(self, content: Content) -> OpenContent:
        """Return the opened *content* of a file of a tree that this cache returned.

        If its data file is gone (evicted, deleted by hand, or damaged and dropped), its bytes are fetched by ranges if
        the layer's index has spans of its blob. Otherwise the layer is ingested again first: waits for the ingest, and
        raises its errors. Raises CacheFailure if that does not help.
        """
        try:
            return self._overflow.opened(content) or self._contents.open(content)
        except CacheFailure as failure:
            return self._overflow.opened_after(failure, content)

    def in_use(self, layer: Digest) -> tuple[LayerIndex | None, LayerBlob | None]:
        """Return the index and the blob of a layer; None and None if it is not in use."""
        return self._indexes.in_use(layer)

    def complete(self, blobs: Sequence[LayerBlob], *, compare: bool = False, stays: bool = False) -> None:
        """Fetch the missing bytes of indexed layers, each by one request.

        Waits; raises the errors of the network. With *compare*, tables are compared with archives, which takes twice
        the CPU time. With *stays*, no byte is evicted as long as the indexes of the layers are in use.
        """
        self._contents.complete(blobs, compare=compare, stays=stays)

    def fetch(
        self, contents: Iterable[Content], report: Callable[[str, int, int], None], *, gives_way: bool = False
    ) -> None:
        """Fetch the missing bytes of *contents* of a tree in use, in few requests.

        *report* is called with a layer, its bytes in the cache, and their total. With *gives_way* each request begins
        while no read of a user waits. Waits; raises the errors of the network, DigestMismatch, CacheFailure.
        """
        self._contents.fetch(contents, report, gives_way=gives_way)

    def replace(self, path: Path) -> None:
        """Make the damaged and dropped file *path* again, if its layer is in use. Waits; raises as open()."""
        self._indexes.replace(path)

    def blob(self, blob: LayerBlob) -> Iterator[bytes]:
        """Yield the bytes of the blob; if it has a table of contents, compare both.

        Waits; raises the errors of the network, and DigestMismatch at the end of wrong bytes.
        """
        if blob.table_format is not None:
            with suppress(NeedsWhole):
                return self._chunks.compared(self._indexes.index(blob), blob)
        return blob.chunks()

    def has_all(self, layers: Sequence[Digest]) -> bool:
        """Whether the cache has all bytes of *layers*, which are in use."""
        return self._contents.has_all(layers)

    def kept_verdicts(self, a: Rootfs, b: Rootfs) -> bytes | None:
        """Return the stored result of a comparison of two trees in use; None if there is none."""
        return read_verdicts(verdicts_path(b.merged.path, a.merged.path))

    def keep_verdicts(self, a: Rootfs, b: Rootfs, verdicts: bytes) -> None:
        """Store the result of a comparison of two trees in use. If that fails, it is computed again."""
        try:
            write_verdicts(verdicts_path(b.merged.path, a.merged.path), verdicts, self._store.budget)
        except CacheFailure as failure:
            log.info("the result of a comparison is not kept: %s", failure)

    def _want(self, blobs: Sequence[LayerBlob]) -> None:
        """Queue the missing bytes of *blobs* for --background-fetch."""
        for blob in blobs:
            if self._background is not None and blob.table_format is not None:
                self._background.want(blob.stored_as, partial(self._fetch_rest, blob))

    def _fetch_rest(self, blob: LayerBlob) -> None:
        if not self._store.is_complete(blob.stored_as):
            with suppress(NeedsWhole):  # the whole layer is fetched when it is read
                self._chunks.fetch_rest(self._indexes.index_with_content(blob), blob)

    # Merged images.

    def _open_merged(self, chain: Digest, blobs: Sequence[LayerBlob]) -> Rootfs | None:
        """Return the merged image if the cache has its table and all its layers, else None."""
        path = self._merges.path(chain)
        indexes = [index for blob in blobs if (index := self._indexes.find(blob)) is not None]
        if len(indexes) < len(blobs):
            return None
        try:
            use = self._store.uses.announce(path)
            make_again = partial(self._merge_again, chain, blobs)
            merged = MergedTable(path, tables=self._store.tables, use=use, make_again=make_again)
            merged.open_now()
        except NotFound:
            return None
        except CacheDamaged as failure:
            self._drop_damaged_table(path, failure)
            return None
        touch(path)
        diff_ids, hidden = [blob.stored_as for blob in blobs], [blob.hidden for blob in blobs]
        tables = self._store.tables
        return self._merged.setdefault(chain, Rootfs(merged, indexes, diff_ids=diff_ids, hidden=hidden, tables=tables))

    def _merge_again(self, chain: Digest, blobs: Sequence[LayerBlob], failure: CacheFailure) -> None:
        """Merge an image in use again, because its table was deleted or proved damaged."""
        path = self._merges.path(chain)
        if isinstance(failure, CacheDamaged):
            self._drop_damaged_table(path, failure)
        if not path.exists():
            log.warning("%s; the image is merged again", failure)
            layers = tuple(blob.key for blob in blobs)
            flight = ("rootfs", chain, layers)
            self._flights.run(flight, lambda: self._merge(chain, blobs), streams=True, parts=layers)

    def _drop_damaged_table(self, path: Path, failure: CacheDamaged) -> None:
        if not is_sound(self._store.root, path):  # otherwise another thread or daemon has replaced it
            log.warning("%s; it is made again", failure)
            with suppress(OSError):
                take_away(path)

    def _merge(self, chain: Digest, blobs: Sequence[LayerBlob]) -> Rootfs:
        return twice_if_deleted(lambda: self._merge_once(chain, blobs), self._store.root)

    def _merge_once(self, chain: Digest, blobs: Sequence[LayerBlob]) -> Rootfs:
        held = self._ingest_all(blobs)  # marked as in use, so that none of these layers is evicted
        table = self._store.uses.hold(self._merges.path(chain))
        try:
            self._merges.run(chain, [(blob.stored_as, blob.hidden) for blob in blobs])
            rootfs = self._open_merged(chain, blobs)
        finally:
            table.release()
        del held
        if rootfs is None:
            raise CacheFailure(f"the merged table of {blobs[-1].origin if blobs else chain} vanished from the cache")
        return rootfs

    def _ingest_all(self, blobs: Sequence[LayerBlob]) -> list[LayerIndex]:
        """Return the indexes of all layers. Missing layers are ingested, several at a time.

        The first error is raised at once. Running ingests continue, for the next request.
        """
        indexes: list[LayerIndex] = []
        missing: list[LayerBlob] = []
        under_way: set[Future[Landed[LayerIndex]]] = set()
        # The biggest layer first: it takes the longest.
        for blob in sorted(blobs, key=lambda blob: -blob.descriptor.size):
            index = self._indexes.checked(blob)
            if index is None:
                missing.append(blob)
            else:
                indexes.append(index)
        no_room = self._no_room_for(missing)
        for number, blob in enumerate(missing):
            if len(under_way) >= _LAYERS_AT_ONCE:
                under_way = self._landed(under_way, indexes, missing)
            niceness = NICE_BESIDE_THE_BIGGEST if number else 0
            ingesting = partial(self._indexes.ingested, blob, niceness, no_room=no_room)
            under_way.add(self._flights.begin(blob.key, ingesting, streams=True))
        while under_way:
            under_way = self._landed(under_way, indexes, missing)
        return indexes

    def _no_room_for(self, missing: Sequence[LayerBlob]) -> CacheFull | None:
        """Return why the cache cannot take the layers *missing*, which are needed together; None if it may.

        Nothing is evicted for an image that would not fit. Unpacked the layers are larger, by an unknown factor.
        """
        whole = {blob.stored_as: blob.descriptor.size for blob in missing if blob.table_format is None}
        try:
            self._store.budget.require(sum(whole.values()))
        except CacheFull as failure:
            return failure
        return None

    def _landed(
        self, under_way: set[Future[Landed[LayerIndex]]], indexes: list[LayerIndex], missing: Sequence[LayerBlob]
    ) -> set[Future[Landed[LayerIndex]]]:
        """Wait until a flight ends, add its result to *indexes*, and return the flights that still run.

        Raises WorkStalled if none of them makes progress: a thread that hangs in the kernel cannot be ended, and must
        not block every image.
        """
        keys = [blob.key for blob in missing]
        done: set[Future[Landed[LayerIndex]]] = set()
        while not done:
            done, under_way = wait(under_way, _LOOK_S, return_when=FIRST_COMPLETED)
            if not done and time.monotonic() - self._flights.stalled_since(keys) > 2 * self._stall_s:
                raise WorkStalled(f"{missing[0].origin}: no layer makes progress; does the disk of the cache answer?")
        indexes.extend(future.result().result() for future in done)
        return under_way
