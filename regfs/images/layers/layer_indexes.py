"""LayerIndexes: opens the index of each layer once for all images, ingests missing layers, and repairs damaged ones.

Used by layer_cache.py. Thread rule: any thread; one ingest for each layer, for any number of waiting threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary

from cachetools import TTLCache

from regfs.errors import (
    CacheDamaged,
    CacheFailure,
    InvalidName,
    NotFound,
    RangesRefused,
    RegistryTimeout,
    TooLarge,
    Unsupported,
    WorkerKilled,
    WorkStalled,
)
from regfs.images.layers.layer_ingests import LayerBlob, LayerIngests
from regfs.images.layers.partial_layers import PartialLayers
from regfs.model.digest import Digest
from regfs.process.waiting.single_flight import Flights
from regfs.store.eviction.in_use import Use
from regfs.store.eviction.inventory import INDEX, LAYERS
from regfs.store.files.failures import is_exhausted
from regfs.store.layers.borrowed_indexes import borrow
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_names import diff_id_of
from regfs.store.layers.layer_store import LayerStore

log = logging.getLogger(__name__)

# How many seconds a layer with an unusable table of contents is read whole before the table is tried again.
_WHOLE_S = 3600.0
_MOST_REMEMBERED = 4096
# Another process may evict a layer just before it is opened: then it is ingested once more.
_ATTEMPTS = 2


class LayerIndexes:
    """The indexes of the layers of one *store*. *note* is called with messages for users."""

    def __init__(
        self,
        store: LayerStore,
        ingests: LayerIngests,
        partial_layers: PartialLayers,
        *,
        flights: Flights,
        note: Callable[[str], None],
        lender: LayerStore | None = None,
    ) -> None:
        """*ingests* reads whole layers, *partial_layers* those with a table of contents; *lender*: see borrow()."""
        self._store = store
        self._lender = lender
        self._ingests = ingests
        self._partial = partial_layers
        self._flights = flights
        self._note = note
        self._needs_whole: TTLCache[Digest, bool] = TTLCache(_MOST_REMEMBERED, _WHOLE_S)
        self._indexes: WeakValueDictionary[Digest, LayerIndex] = WeakValueDictionary()
        # The layers whose index was dropped, and not made again yet.
        self._left: dict[Digest, Use] = {}
        # The blobs of the layers in use.
        self._blobs: WeakKeyDictionary[LayerIndex, LayerBlob] = WeakKeyDictionary()

    def in_use(self, layer: Digest) -> tuple[LayerIndex | None, LayerBlob | None]:
        """Return the index and the blob of a layer; None and None if it is not in use."""
        index = self._indexes.get(layer)
        return index, None if index is None else self._blobs.get(index)

    def index(self, blob: LayerBlob) -> LayerIndex:
        """Return the opened index of a layer; ingests a missing layer and waits for that. Raises as ingested() does."""
        index = self.checked(blob)
        with named(blob.origin):
            return index or self._flights.run(blob.key, lambda: self.ingested(blob), streams=True)

    def index_with_content(self, blob: LayerBlob) -> LayerIndex:
        """Return the opened index of a layer that also has its data file; ingests the layer again if one is missing."""
        index = self.index(blob)
        if not self._store.is_ingested(blob.stored_as):
            self.restore(index, blob)
        return index

    def restore(self, index: LayerIndex | None, blob: LayerBlob) -> None:
        """Ingest a layer in use again unless its data file is complete. Waits; raises as ingested() does.

        Raises CacheFailure where only its names could be kept.
        """
        if index is not None:
            self._partial.forget(index)
        if not self._store.is_whole(blob.stored_as):
            # The open index stays valid: equal bytes of a layer give equal rows.
            with named(blob.origin):
                self._flights.run(("whole", *blob.key), partial(self._ingest_whole, blob), streams=True)

    def replace(self, path: Path) -> None:
        """See LayerCache.replace()."""
        self._store.tables.close_idle()  # later queries open the new file
        if path.suffix != INDEX or path.parent.name != LAYERS:
            return
        with suppress(InvalidName):
            layer = diff_id_of(path.stem)
            self._store.drop(layer)
            index, blob = self.in_use(layer)
            if blob is not None:
                self.restore(index, blob)

    def find(self, blob: LayerBlob) -> LayerIndex | None:
        """Return the index of a layer, None if it is missing. Its file is opened at the first query."""
        index = self._indexes.get(blob.stored_as)
        if index is None:
            try:
                index = self._store.index(blob.stored_as, make_again=partial(self._ingest_again, blob))
            except NotFound:
                return None
            index = self._indexes.setdefault(blob.stored_as, index)
            self._blobs[index] = blob
        return index

    def checked(self, blob: LayerBlob) -> LayerIndex | None:
        """Return the opened index of a layer; None if its file is gone or damaged. Raises CacheFailure."""
        index = self.find(blob)
        if index is None or not self._store.has_names(blob.stored_as):
            return None
        try:
            index.open_now()
        except NotFound:
            return None
        except CacheDamaged as failure:  # other failures do not prove damage; the caller handles them
            self._drop_damaged(blob, failure)
            return None
        return index

    def _ingest_again(self, blob: LayerBlob, failure: CacheFailure) -> None:
        """Ingest the layer of an index in use again, because the index file was deleted or proved damaged."""
        if isinstance(failure, CacheDamaged):
            self._drop_damaged(blob, failure)
        if not self._store.has_names(blob.stored_as):
            log.warning("%s; it is made again", failure)
            with named(blob.origin):
                self._flights.run(blob.key, partial(self.ingested, blob), streams=True)

    def _drop_damaged(self, blob: LayerBlob, failure: CacheDamaged) -> None:
        if not self._store.has_sound_index(blob.stored_as):  # otherwise another thread or daemon has replaced it
            log.warning("%s; the index is dropped", failure)
            with suppress(CacheFailure):
                # Until the index is made again of its archive, which would otherwise be evicted as a leftover.
                self._left[blob.stored_as] = self._store.uses.hold(self._store.index_path(blob.stored_as))
                self._store.drop_index(blob.stored_as)

    def ingested(self, blob: LayerBlob, niceness: int = 0, *, no_room: CacheFailure | None = None) -> LayerIndex:
        """Ingest the layer unless the cache has it, and return its index.

        Runs in a flight; a worker runs at *niceness* (nice(2)). *no_room*: why the bytes of a plain layer cannot be
        kept, if that is known. Waits. Raises NeedsWhole if the layer must be read
        whole; BadLayer, DigestMismatch, Unsupported, CacheFailure, and the errors of the network.
        """
        # Marked as in use before it exists. Another daemon that needs room would otherwise evict it at once.
        held = self._store.uses.hold(self._store.index_path(blob.stored_as))
        try:
            for _ in range(_ATTEMPTS):
                self._ingest(blob, niceness, no_room)
                index = self.find(blob)
                if index is not None:
                    return index
        finally:
            held.release()
            self._left.pop(blob.stored_as, None)
        raise CacheFailure(f"layer {blob.stored_as} vanished from the cache while it was opened")

    def as_it_is_here(self, blob: LayerBlob) -> LayerBlob:
        """Return *blob*, or blob.whole() if the cache has the whole layer or its table proved unusable."""
        if blob.table_format is None or self._store.has_names(blob.stored_as):
            return blob
        whole = blob.whole()
        return whole if blob.stored_as in self._needs_whole or self._store.has_names(whole.stored_as) else blob

    def _ingest(self, blob: LayerBlob, niceness: int = 0, no_room: CacheFailure | None = None) -> None:
        """Put the layer's index into the store unless it has it. Raises NeedsWhole if the layer's table is unusable."""
        if blob.table_format is None or blob.part is None:
            self._ingest_plain(blob, niceness, no_room)
            return
        try:
            self._partial.ingest(blob)
        except (Unsupported, TooLarge, RangesRefused) as reason:
            self._needs_whole[blob.stored_as] = True
            self._note(f"{blob.origin}: layer {blob.descriptor.digest} is fetched whole: {reason}")
            raise NeedsWhole(str(reason)) from reason

    def _ingest_whole(self, blob: LayerBlob) -> None:
        """Ingest the layer with its bytes; of a lazy layer, which has them later, its names."""
        held = self._store.uses.hold(self._store.index_path(blob.stored_as))
        try:
            if blob.table_format is None:
                self._ingests.run(blob)
            else:
                self._ingest(blob)
        finally:
            held.release()

    def _ingest_plain(self, blob: LayerBlob, niceness: int, no_room: CacheFailure | None) -> None:
        try:
            if no_room is not None and self._store.left_archive(blob.diff_id) is None:
                if self._lender is not None and borrow(blob.stored_as, lender=self._lender, store=self._store):
                    return
                raise no_room
            self._ingests.run(blob, niceness)
        except CacheFailure as failure:
            self.keep_names(blob, failure, niceness)

    def keep_names(self, blob: LayerBlob, failure: CacheFailure, niceness: int = 0) -> None:
        """Put the index of a plain layer into the store, with spans for all of it; *failure* kept it from its bytes.

        Raises *failure* where that does not help, and as ingested() does.
        """
        is_of_cache = not isinstance(failure, CacheDamaged | WorkerKilled) and not is_exhausted(failure)
        if blob.table_format is not None or blob.part is None or not is_of_cache:
            raise failure
        try:
            self._ingests.run(blob, niceness, names_only=True)
        except CacheFailure as again:
            raise failure from again
        self._store.unkept.tell(failure)


class NeedsWhole(Exception):
    """The layer's table of contents is unusable, so the layer must be read whole."""


@contextmanager
def named(origin: str) -> Iterator[None]:
    """Add registry and repository to the block's error of a wait that was too long: flights know only digests."""
    try:
        yield
    except (RegistryTimeout, WorkStalled) as timeout:
        raise type(timeout)(f"{origin}: {timeout}") from timeout
