"""PlainParts: reads plain layers whose data file is not here by ranges of their blobs, as the spans in the index say.

The pass over a layer records its spans where that costs nothing (layers/spans.py). They are verified ranges of one
blob, so that a file of a layer whose bytes were evicted costs the spans that it lies in, not the whole layer. A layer
that the cache could not take has spans of all its bytes: they are fetched each time, and kept once there is room. A
sparse file is put together from the spans of its extents.
Used by layer_contents.py. Thread rule: any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, ref

from regfs.images.layers.layer_ingests import LayerBlob
from regfs.images.lazy.foreground import Foreground
from regfs.process.waiting.single_flight import Flights
from regfs.store.layers.content import OpenContent, OpenPartialContent, Span
from regfs.store.layers.data_writer import TAR
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.refetched_data import open_parts
from regfs.store.layers.span_table import SpanTable
from regfs.store.layers.sparse_map import SparseMap
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.images.lazy.chunk_fetching import ChunkFetcher


# How many seconds the parts of a layer stay in memory before the cache is tried again.
_UNKEPT_S = 10.0


class _Layer(NamedTuple):
    """The spans of a layer and what fetches them. *until_s*: how long that may keep nothing.

    *sparse* finds the map of the sparse file at an offset of the data file.
    """

    table: SpanTable
    fetcher: ChunkFetcher
    until_s: float
    expanded_offset: int
    sparse: Callable[[int], SparseMap | None]

    def stored(self, wanted: tuple[int, int]) -> tuple[int, int] | None:
        """Return the range of the tar stream for all of a file at *wanted* of the data file; None if not known."""
        start, stop = wanted
        if stop <= self.expanded_offset:
            return wanted
        found = self.sparse(start)
        return None if found is None or found.size != stop - start else found.range

    def has(self, wanted: Sequence[tuple[int, int]], *, alone: bool) -> bool:
        """Whether all of *wanted*, which are ranges of files, are in spans. *alone*: see PlainParts.open()."""
        stored = [self.stored(each) for each in wanted]
        known = [each for each in stored if each is not None]
        return len(known) == len(stored) and self.table.covers(known, alone=alone)

    @property
    def is_to_be_tried_again(self) -> bool:
        """Whether the cache could take nothing of the layer some time ago."""
        return self.fetcher.data.refusal is not None and time.monotonic() > self.until_s


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
        self._layers: WeakKeyDictionary[LayerIndex, _Layer] = WeakKeyDictionary()

    def open(self, index: LayerIndex, blob: LayerBlob, span: Span, *, alone: bool) -> OpenContent | None:
        """Return the opened *span*, whose bytes are fetched when they are read; None if only the whole layer has them.

        *alone*: only if they can be fetched without the rest of the layer. Raises CacheFailure.
        """
        found = self._layer(index, blob, [(span.offset, span.offset + span.size)], alone=alone)
        if found is None:
            return None
        fetcher, ensure = found.fetcher, found.fetcher.ensure
        if span.offset >= found.expanded_offset and (sparse := found.sparse(span.offset)) is not None:
            from regfs.images.lazy.sparse_reads import SparseReads

            ensure = SparseReads(span, sparse, fetcher).ensure
        return OpenPartialContent(span, fetcher.data, ensure=ensure)

    def fetch(
        self, index: LayerIndex, blob: LayerBlob, wanted: Sequence[tuple[int, int]], report: Callable[[int, int], None]
    ) -> bool:
        """Fetch the ranges *wanted*, which are files, of the data file; return False if only the whole layer has them.

        *report*: see ChunkFetcher.fetch(), which says what is raised.
        """
        found = self._layer(index, blob, wanted, alone=True)
        if found is not None:
            found.fetcher.fetch([stored for each in wanted if (stored := found.stored(each)) is not None], report)
        return found is not None

    def _layer(
        self, index: LayerIndex, blob: LayerBlob, wanted: Sequence[tuple[int, int]], *, alone: bool
    ) -> _Layer | None:
        """Return the layer if its spans have the ranges *wanted*, which are files, of the data file. See open()."""
        if blob.part is None:
            return None
        with self._lock:
            found = self._layers.get(index)
            if found is None or found.is_to_be_tried_again or not (alone or found.has(wanted, alone=alone)):
                found = self._made(index, blob)
                if found is None:
                    return None
                self._layers[index] = found
        if found.table.blob != str(blob.descriptor.digest) or not found.has(wanted, alone=alone):
            return None
        found.fetcher.touch()
        return found

    def _made(self, index: LayerIndex, blob: LayerBlob) -> _Layer | None:
        """Return the fetcher of a layer; None if its index has no spans of *blob*."""
        from regfs.images.lazy.cache_room import CacheRoom
        from regfs.images.lazy.chunk_fetching import ChunkFetcher
        from regfs.images.lazy.chunk_source import LayerBytes
        from regfs.images.lazy.plain_spans import unpack_spans

        assert blob.part is not None
        layer = blob.stored_as
        # Opened again, because *index* may still have an older file open, without spans.
        with closing(LayerIndex.open(self._store.index_path(layer))) as opened:
            layout, table = opened.layout(), SpanTable.of(opened)
        if layout.source != TAR or table.blob != str(blob.descriptor.digest):
            return None
        let_go = partial(self._let_go, ref(index))
        data = open_parts(self._store, layer, size=layout.size, count=table.count, table=table.id, let_go=let_go)
        self._store.tables.add(data, descriptors=2)
        unpack = partial(unpack_spans, table.restart)
        fetcher = ChunkFetcher(
            layer,
            table=table,
            data=data,
            source=LayerBytes(f"{blob.origin}@{blob.descriptor.digest}", blob.part, blob.chunks, unpack),
            flights=self._flights,
            stats=self._stats,
            foreground=self._foreground,
            note=self._note,
            rest_from=self._rest_from if data.refusal is None else 1.0,
            room=CacheRoom(self._store.budget, layout.size),
            streams=True,
        )
        sparse = partial(_sparse_map, self._store.index_path(layer), layout.expanded_offset)
        return _Layer(table, fetcher, time.monotonic() + _UNKEPT_S, layout.expanded_offset, sparse)

    def _let_go(self, index: ref[LayerIndex]) -> None:
        # Called under a lock, while idle files are closed: must not wait for another lock.
        found = index()
        if found is not None:
            self._layers.pop(found, None)

    def forget(self, index: LayerIndex) -> None:
        """Close the files of a layer, because all of it is here, or its index is another one."""
        with self._lock:
            self._layers.pop(index, None)


def _sparse_map(index_path: Path, expanded_offset: int, start: int) -> SparseMap | None:
    """Return the map of the sparse file at byte *start* of the data file. Raises CacheFailure, NotFound."""
    with closing(LayerIndex.open(index_path)) as index:
        return index.sparse_map(start - expanded_offset)
