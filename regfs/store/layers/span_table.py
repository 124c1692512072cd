"""SpanTable: the spans of a plain layer's archive that can be fetched again alone (layers/spans.py), in memory.

Used by images/layers/plain_parts.py and wrong_layers.py. A value; any thread.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from regfs.store.layers.chunks import StoredChunk
from regfs.store.layers.layer_index import LayerIndex

_TABLE_ID = 12


class SpanTable:
    """The spans of one layer, in order, and without gaps from the beginning of its archive on.

    A copy of those in the index: another process may replace that by one with other spans.
    """

    def __init__(self, blob: str, spans: Sequence[StoredChunk]) -> None:
        self._spans = spans
        self._starts = [span.start for span in spans]
        self.count = len(spans)
        self.id = hashlib.sha256(repr((blob, spans)).encode()).digest()[:_TABLE_ID]

    @staticmethod
    def of(index: LayerIndex) -> SpanTable:
        """Return the spans in *index*. Raises CacheFailure."""
        return SpanTable(index.blob() or "", sorted(index.chunks_by_place(), key=lambda chunk: chunk.start))

    def chunks_between(self, start: int, stop: int) -> list[StoredChunk]:
        """Return the spans that have bytes of `[start, stop)`. See ChunkTable."""
        first = max(0, bisect_right(self._starts, start) - 1)
        found: list[StoredChunk] = []
        for span in self._spans[first:]:
            if span.start >= stop:
                break
            if span.stop > start:
                found.append(span)
        return found

    def chunks_by_place(self) -> Iterator[StoredChunk]:
        """Yield all spans. See ChunkTable."""
        return iter(self._spans)
