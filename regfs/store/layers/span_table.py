"""SpanTable: the spans of a plain layer's archive that can be fetched again alone (layers/spans.py), in memory.

Used by images/layers/plain_parts.py and wrong_layers.py. A value; any thread.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from regfs.store.layers.chunks import StoredChunk
from regfs.store.layers.layer_index import LayerIndex

_TABLE_ID = 12


class SpanTable:
    """The spans of one layer, in order, and without gaps from the beginning of its archive on.

    A copy of those in the index: another process may replace that by one with other spans.
    """

    def __init__(self, blob: str, spans: Sequence[StoredChunk], restarts: Mapping[int, tuple[int, bytes]]) -> None:
        """*restarts*: what inflating needs that begins at these bytes of the *blob*, a digest."""
        self.blob = blob
        self.all = spans
        self._restarts = restarts
        self._starts = [span.start for span in spans]
        self.count = len(spans)
        self.id = hashlib.sha256(repr((blob, spans)).encode()).digest()[:_TABLE_ID]

    @staticmethod
    def of(index: LayerIndex) -> SpanTable:
        """Return the spans in *index*. Raises CacheFailure."""
        spans = sorted(index.chunks_by_place(), key=lambda chunk: chunk.start)
        return SpanTable(index.blob() or "", spans, {at: (bits, window) for at, bits, window in index.restarts()})

    def chunks_between(self, start: int, stop: int) -> list[StoredChunk]:
        """Return the spans that have bytes of `[start, stop)`. See ChunkTable."""
        first = max(0, bisect_right(self._starts, start) - 1)
        found: list[StoredChunk] = []
        for span in self.all[first:]:
            if span.start >= stop:
                break
            if span.stop > start:
                found.append(span)
        return found

    def chunks_by_place(self) -> Iterator[StoredChunk]:
        """Yield the spans that can be fetched alone. See ChunkTable."""
        return (span for span in self.all if span.stored)

    def bytes_of_chunks(self) -> int:
        """Return how many bytes those spans have together. See ChunkTable."""
        return sum(span.size for span in self.chunks_by_place())

    def sizes_of_chunks(self) -> Iterator[tuple[int, int]]:
        """Yield number and size of each of those spans. See ChunkTable."""
        return ((span.number, span.size) for span in self.chunks_by_place())

    def restart(self, at: int) -> tuple[int, bytes] | None:
        """Return the bits and the compressed window to begin inflating with at byte *at* of the blob."""
        return self._restarts.get(at)

    def covers(self, ranges: Iterable[tuple[int, int]], *, alone: bool) -> bool:
        """Whether all bytes of *ranges*, each `[start, stop)`, are in spans; *alone*: in ones that need no others."""
        end = self.all[-1].stop if self.all else 0
        return all(
            stop <= end and (not alone or all(span.stored for span in self.chunks_between(start, stop)))
            for start, stop in ranges
        )
