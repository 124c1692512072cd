"""Layers whose names come from their table of contents, and whose bytes are fetched when they are read.

Used by layer_cache.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, proxy, ref

from regfs.images.answers.blobs import twice_if_wrong
from regfs.images.passes import LayerBlob
from regfs.store.layer_index import LayerIndex
from regfs.store.layer_store import LayerStore
from regfs.telemetry.stats import Stats
from regfs.waiting.flights import Flights

if TYPE_CHECKING:
    from regfs.images.chunk_fetching import ChunkFetcher

log = logging.getLogger(__name__)


class PartialLayers:
    """The layers of one *store* that are fetched chunk by chunk. *note* hears what users should know."""

    def __init__(self, store: LayerStore, *, flights: Flights, stats: Stats, note: Callable[[str], None]) -> None:
        self._store = store
        self._flights = flights
        self._stats = stats
        self._note = note
        self._lock = threading.Lock()
        self._fetchers: WeakKeyDictionary[LayerIndex, ChunkFetcher] = WeakKeyDictionary()

    def ingest(self, blob: LayerBlob) -> None:
        """See to it that the names of the layer, which has a table, are in the store.

        Raises Unsupported, TooLarge and RangesRefused where it has to be read whole; DigestMismatch and BadLayer where
        the table is wrong; CacheFailure, and what a network brings.
        """
        # Loaded now, with all that reads archives: a mount of known images never needs it.
        from regfs.images.table_ingest import ingest_table

        table_format, part = blob.table_format, blob.part
        assert table_format is not None
        assert part is not None
        remark = twice_if_wrong(
            lambda: ingest_table(
                blob.descriptor, layer=blob.stored_as, table_format=table_format, part=part, store=self._store
            )
        )
        if remark:
            self._note(f"{blob.origin}: layer {blob.descriptor.digest}: {remark}")
        self._stats.count("layers.tables")
        self._store.settle_soon()

    def fetcher(self, index: LayerIndex, blob: LayerBlob) -> ChunkFetcher:
        """Return what fetches the bytes of the layer whose names *index* has. Raises CacheDamaged, CacheFailure."""
        from regfs.images.chunk_fetching import ChunkFetcher, LayerBytes

        with self._lock:
            fetcher = self._fetchers.get(index)
            if fetcher is not None:
                fetcher.touch()
            else:
                assert blob.table_format is not None
                assert blob.part is not None
                what = f"{blob.origin}@{blob.descriptor.digest}"
                let_go = partial(self._let_go, ref(index))
                fetcher = self._fetchers[index] = ChunkFetcher(
                    blob.stored_as,
                    # An open file keeps its tree, and that its indexes: one that is in use here would be so for ever.
                    table=proxy(index),
                    data=self._store.partial_data(blob.stored_as, let_go),
                    source=LayerBytes(what, blob.part, blob.chunks, blob.table_format.read),
                    flights=self._flights,
                    stats=self._stats,
                )
        return fetcher

    def _let_go(self, index: ref[LayerIndex]) -> None:
        # Called by one that closes what is idle and holds a lock: no other may be waited for.
        found = index()
        if found is not None:
            self._fetchers.pop(found, None)

    def forget(self, index: LayerIndex) -> None:
        """Let go of the files of a layer, which are gone or damaged."""
        with self._lock:
            self._fetchers.pop(index, None)
