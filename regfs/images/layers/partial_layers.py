"""PartialLayers: lazy layers, whose names come from the table of contents, and whose bytes are fetched when read.

Used by layer_cache.py and layer_indexes.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, proxy, ref

from cachetools import LRUCache

from regfs.images.answers.blobs import twice_if_wrong
from regfs.images.layers.layer_ingests import LayerBlob
from regfs.images.lazy.foreground import Foreground
from regfs.model.digest import Digest
from regfs.process.waiting.single_flight import Flights
from regfs.store.eviction.in_use import Use
from regfs.store.layers.content import OpenContent, Pieces, Span
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.images.lazy.chunk_fetching import ChunkFetcher

log = logging.getLogger(__name__)

_MOST_COMPARED = 4096
_BLOCK = 1 << 20
SOCI = "SOCI"
"""The name of the format whose data file is the layer's archive (layers/formats/soci.py)."""


class PartialLayers:
    """The layers of one *store* that are fetched chunk by chunk. *note* is called with messages for users."""

    def __init__(
        self, store: LayerStore, *, flights: Flights, stats: Stats, note: Callable[[str], None], rest_from: float
    ) -> None:
        """Once *rest_from* of a layer's bytes are here, the rest is fetched too."""
        self._store = store
        self._rest_from = rest_from
        self.foreground = Foreground()
        self._flights = flights
        self._stats = stats
        self._note = note
        self._lock = threading.Lock()
        self._compared: LRUCache[Digest, bool] = LRUCache(_MOST_COMPARED)
        self._uncompared: set[Digest] = set()
        self._fetchers: WeakKeyDictionary[LayerIndex, ChunkFetcher] = WeakKeyDictionary()
        # The kernel reads the data file of a layer that it mounts by itself: a hole there would be read as zeros.
        self._kept_whole: WeakKeyDictionary[LayerIndex, Use] = WeakKeyDictionary()

    def ingest(self, blob: LayerBlob) -> None:
        """Put the index of the layer, which has a table, into the store.

        Raises Unsupported, TooLarge and RangesRefused if it must be read whole; DigestMismatch and BadLayer if the
        table is wrong; CacheFailure, and the errors of the network.
        """
        # Imported here, with all readers of archives: a mount of known images never needs them.
        from regfs.images.lazy.toc_ingest import ingest_table, ingest_ztoc
        from regfs.layers.formats.format import found_nowhere
        from regfs.layers.formats.soci import Soci

        table_format, part = blob.table_format, blob.part
        assert table_format is not None
        assert part is not None
        if isinstance(table_format, Soci):
            remark = ingest_ztoc(blob.descriptor, table_format, layer=blob.stored_as, store=self._store)
        else:
            ingest = partial(
                ingest_table,
                blob.descriptor,
                layer=blob.stored_as,
                table_format=table_format,
                part=part,
                store=self._store,
                find_table=blob.find_table or found_nowhere,
            )
            remark = twice_if_wrong(ingest)
        if remark:
            self._note(f"{blob.origin}: layer {blob.descriptor.digest}: {remark}")
        self._stats.count("layers.tables")
        self._store.settle_soon()

    def fetcher(self, index: LayerIndex, blob: LayerBlob) -> ChunkFetcher:
        """Return the ChunkFetcher of the layer that *index* describes. Raises CacheDamaged, CacheFailure."""
        from regfs.images.lazy.cache_room import CacheRoom
        from regfs.images.lazy.chunk_fetching import ChunkFetcher
        from regfs.images.lazy.chunk_source import LayerBytes
        from regfs.images.lazy.soci_spans import unpack_spans
        from regfs.layers.formats.soci import Soci

        with self._lock:
            fetcher = self._fetchers.get(index)
            if fetcher is not None:
                fetcher.touch()
                self._store.drop_if_cut(blob.stored_as, fetcher.data)
            else:
                assert blob.table_format is not None
                assert blob.part is not None
                what = f"{blob.origin}@{blob.descriptor.digest}"
                # A weak reference, or the index would be in use for ever: an open file keeps its tree, which keeps its
                # indexes.
                table = proxy(index)
                table_format = blob.table_format
                unpack = partial(unpack_spans, table) if isinstance(table_format, Soci) else table_format.read
                let_go, size = partial(self._let_go, ref(index)), index.layout().size
                fetcher = self._fetchers[index] = ChunkFetcher(
                    blob.stored_as,
                    table=table,
                    data=self._store.partial_data(blob.stored_as, let_go, size=size),
                    source=LayerBytes(what, blob.part, partial(self._whole, blob, ref(index)), unpack),
                    flights=self._flights,
                    stats=self._stats,
                    foreground=self.foreground,
                    note=self._note,
                    rest_from=self._rest_from,
                    room=CacheRoom(self._store.budget, size),
                    names=None if isinstance(table_format, Soci) else table,
                )
        return fetcher

    def _whole(self, blob: LayerBlob, index: ref[LayerIndex]) -> Iterator[bytes]:
        found = index()
        return blob.chunks() if found is None else self.compared(found, blob)

    def compared(self, index: LayerIndex, blob: LayerBlob) -> Iterator[bytes]:
        """Yield the layer's blob, and report once per layer if its archive and its table differ."""
        if blob.stored_as in self._compared or blob.stored_as in self._uncompared:
            return blob.chunks()
        from regfs.images.lazy.toc_comparison import TableComparison, compared

        return compared(blob.chunks(), blob.descriptor.size, TableComparison(index), partial(self._tell, blob))

    def complete(self, index: LayerIndex, blob: LayerBlob, *, compare: bool, stays: bool) -> None:
        """Fetch the missing bytes of a layer by one request; see LayerCache.complete."""
        if stays:
            self._kept_whole[index] = self._store.uses.hold(self._store.map_path(blob.stored_as))
        if self._store.is_complete(blob.stored_as):
            return
        if not compare:
            self._uncompared.add(blob.stored_as)
        try:
            self.fetcher(index, blob).fetch_all()
        finally:
            self._uncompared.discard(blob.stored_as)

    def _tell(self, blob: LayerBlob, differences: Mapping[bytes, str]) -> None:
        """Tell users of the *differences* between the table of a layer and its archive, if there are any."""
        from regfs.images.lazy.toc_comparison import words

        self._compared[blob.stored_as] = True
        self._stats.count("layers.compared")
        if differences:
            self._note(f"{blob.origin}: layer {blob.descriptor.digest}: {words(differences)}")

    def _let_go(self, index: ref[LayerIndex]) -> None:
        # Called under a lock, while idle files are closed: must not wait for another lock.
        found = index()
        if found is not None:
            self._fetchers.pop(found, None)

    def open(self, index: LayerIndex, blob: LayerBlob, span: Span) -> OpenContent:
        """Return an open file of the layer, fetched when it is read. Raises as fetcher() does."""
        fetcher = self.fetcher(index, blob)
        is_here = partial(fetcher.has, span.offset, span.offset + span.size)
        ensure = self._ensure(fetcher, index, blob, span)
        return self._store.open_partial(span, fetcher.data, ensure, is_here=is_here)

    def _ensure(
        self, fetcher: ChunkFetcher, index: LayerIndex, blob: LayerBlob, span: Span
    ) -> Callable[[int, int], Pieces]:
        """Return the function that fetches a range of the data file for the file *span*."""
        from regfs.layers.formats.soci import Soci

        if not isinstance(blob.table_format, Soci):
            return fetcher.ensure
        from regfs.images.lazy.soci_spans import HeaderCheck

        def read(start: int, stop: int) -> bytes:
            wanted = Span(span.layer, start, stop - start)
            opened = self._store.open_partial(wanted, fetcher.data, fetcher.ensure)
            with closing(opened):
                return opened.read_at(0, stop - start)

        what = f"{blob.origin}: layer {blob.descriptor.digest}"
        return HeaderCheck(span.offset, proxy(index), read, fetcher.ensure, what=what, note=self._note).ensure

    def fetch_rest(self, index: LayerIndex, blob: LayerBlob) -> None:
        """Fetch the missing bytes of a layer, while no read waits and nothing must be evicted for them.

        Waits; raises the errors of the network, and CacheFailure.
        """
        from regfs.images.lazy.cache_room import CacheRoom

        self.fetcher(index, blob).fetch_rest(CacheRoom(self._store.budget).has)
        is_archive = blob.table_format is not None and blob.table_format.name == SOCI
        if is_archive and blob.stored_as not in self._compared and self._store.is_complete(blob.stored_as):
            self._compare_archive(index, blob)

    def _compare_archive(self, index: LayerIndex, blob: LayerBlob) -> None:
        """Compare a cached archive with its zTOC. The diff id does not help: soci omits the padding at the end."""
        from regfs.images.lazy.toc_comparison import TableComparison

        fetcher, span = self.fetcher(index, blob), Span(blob.stored_as, 0, index.layout().size)

        def blocks() -> Iterator[bytes]:
            opened = self._store.open_partial(span, fetcher.data, fetcher.ensure)
            with closing(opened) as archive:
                for offset in range(0, span.size, _BLOCK):
                    self.foreground.wait_for_none()
                    yield archive.read_at(offset, _BLOCK)

        self._tell(blob, TableComparison(index).differences(blocks()))

    def forget(self, index: LayerIndex) -> None:
        """Close the files of a layer, because they are gone or damaged."""
        with self._lock:
            self._fetchers.pop(index, None)
