"""Cuts spans out of the decompressed stream of a whole layer, for those that cannot be decompressed alone.

One big zstd frame can only be decompressed from its start. On a disk that cannot take the layer, a read of it costs the
layer up to the span that is read; memory holds that span and some that follow (store/layers/unkept_chunks.py). Each is
verified before it is used. One stream of a layer at a time, for all threads that wait for spans of it.
Used by chunk_fetching.py. Thread rule: any thread; a flight reads the stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing

from regfs.images.lazy.chunk_ranges import Window
from regfs.process.waiting.deadline import current
from regfs.process.waiting.single_flight import Flights
from regfs.store.layers.chunks import PartialData, StoredChunk
from regfs.telemetry.stats import Stats

AHEAD = 16 << 20
"""So many bytes behind a read are kept, so that a reader in order needs few streams."""
_ATTEMPTS = 3
_BLOCK_SIZE = 1 << 20


class ArchiveStreamReads:
    """Reads of the layer *key*: *blob* yields its bytes, verified ones go to *data*, and *wrong* gets the others."""

    def __init__(
        self,
        key: Hashable,
        *,
        blob: Callable[[], Iterator[bytes]],
        data: PartialData,
        flights: Flights,
        stats: Stats,
        wrong: Callable[[StoredChunk], None],
    ) -> None:
        self._key = key
        self._blob = blob
        self._data = data
        self._flights = flights
        self._stats = stats
        self._wrong = wrong
        self._lock = threading.Lock()
        self._wanted: dict[int, StoredChunk] = {}

    def fetch(self, chunks: Iterable[StoredChunk]) -> None:
        """Read the layer until all of *chunks* have passed. Waits; raises the errors of the network, BadLayer."""
        mine = {chunk.number: chunk for chunk in chunks}
        with self._lock:
            self._wanted.update(mine)
        for _ in range(_ATTEMPTS):
            self._flights.run(("stream", self._key), self._read, streams=True)
            with self._lock:
                if mine.keys().isdisjoint(self._wanted):
                    return
            # The stream that this thread joined had passed some of them.

    def _read(self) -> None:
        from regfs.layers.compression.detection import decompressed

        self._stats.count("chunks.streams")
        at = 0
        with closing(current().watch(self._blob())) as blocks:
            window = Window(map(bytes, decompressed(blocks, block_size=_BLOCK_SIZE)))
            while (chunk := self._next(at)) is not None:
                at = chunk.stop
                content = window.take(chunk.start, chunk.size)
                if chunk.digest.matches(content):
                    self._data.keep_or_hold(chunk, content)
                else:
                    self._wrong(chunk)
                with self._lock:
                    self._wanted.pop(chunk.number, None)

    def _next(self, at: int) -> StoredChunk | None:
        """Return the next chunk that is wanted, at byte *at* of the archive or behind; None ends the stream."""
        with self._lock:
            following = [chunk for chunk in self._wanted.values() if chunk.start >= at]
        return min(following, key=lambda chunk: chunk.start, default=None)
