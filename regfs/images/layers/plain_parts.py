"""PlainParts: reads plain layers whose data file is not here by ranges of their blobs, as the spans in the index say.

The pass over a layer records its spans where that costs nothing (layers/spans.py). They are verified ranges of one
blob, so that a file of a layer whose bytes were evicted costs the spans that it lies in, not the whole layer.
Used by layer_contents.py. Thread rule: any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from regfs.images.layers.layer_ingests import LayerBlob
from regfs.images.lazy.foreground import Foreground
from regfs.process.waiting.single_flight import Flights
from regfs.store.layers.content import OpenContent, OpenPartialContent, Span
from regfs.store.layers.data_writer import TAR
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.parts import open_parts
from regfs.store.layers.span_table import SpanTable
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.images.lazy.chunk_fetching import ChunkFetcher


class PlainParts:
    """The parts of plain layers of one *store*. *note* is called with messages for users."""

    def __init__(
        self,
        store: LayerStore,
        *,
        flights: Flights,
        stats: Stats,
        foreground: Foreground,
        note: Callable[[str], None],
        rest_from: float,
    ) -> None:
        """Once *rest_from* of a layer's bytes are here, the rest is fetched too."""
        self._store = store
        self._flights = flights
        self._stats = stats
        self._foreground = foreground
        self._note = note
        self._rest_from = rest_from
        self._lock = threading.Lock()
        self._fetchers: WeakKeyDictionary[LayerIndex, ChunkFetcher] = WeakKeyDictionary()

    def open(self, index: LayerIndex, blob: LayerBlob, span: Span) -> OpenContent | None:
        """Return the opened *span*, whose bytes are fetched when they are read; None if only the whole layer has them.

        Raises CacheFailure.
        """
        fetcher = self.fetcher(index, blob, [(span.offset, span.offset + span.size)])
        if fetcher is None:
            return None
        return OpenPartialContent(
            fetcher.data.fd, span, shared=fetcher.data, ensure=fetcher.ensure, evictions=fetcher.evictions
        )

    def fetcher(self, index: LayerIndex, blob: LayerBlob, wanted: Sequence[tuple[int, int]]) -> ChunkFetcher | None:
        """Return what fetches the ranges *wanted* of the data file; None if only the whole layer has them.

        The contents of sparse files are behind the archive, and in no span. Raises CacheFailure.
        """
        layout = index.layout()
        if layout.source != TAR or blob.part is None or any(stop > layout.tar_size for _, stop in wanted):
            return None
        with self._lock:
            fetcher = self._fetchers.get(index)
            if fetcher is not None:
                fetcher.touch()
                return fetcher
            if index.blob() != str(blob.descriptor.digest):
                return None
            fetcher = self._fetchers[index] = self._made(index, blob, size=layout.size)
        return fetcher

    def _made(self, index: LayerIndex, blob: LayerBlob, *, size: int) -> ChunkFetcher:
        from regfs.images.lazy.chunk_fetching import ChunkFetcher
        from regfs.images.lazy.chunk_source import LayerBytes
        from regfs.images.lazy.plain_spans import unpack_spans

        assert blob.part is not None
        table = SpanTable.of(index)
        layer = blob.stored_as
        data = open_parts(
            self._store, layer, size=size, count=table.count, table=table.id, let_go=partial(self._let_go, ref(index))
        )
        self._store.tables.add(data, descriptors=2)
        return ChunkFetcher(
            layer,
            table=table,
            data=data,
            source=LayerBytes(f"{blob.origin}@{blob.descriptor.digest}", blob.part, blob.chunks, unpack_spans),
            flights=self._flights,
            stats=self._stats,
            foreground=self._foreground,
            note=self._note,
            rest_from=self._rest_from,
        )

    def _let_go(self, index: ref[LayerIndex]) -> None:
        # Called under a lock, while idle files are closed: must not wait for another lock.
        found = index()
        if found is not None:
            self._fetchers.pop(found, None)

    def forget(self, index: LayerIndex) -> None:
        """Close the files of a layer, because all of it is here, or its index is another one."""
        with self._lock:
            self._fetchers.pop(index, None)
