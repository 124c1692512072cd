"""Reads a sparse file out of the tar stream, for a layer without a data file, in which the file would have its holes.

Used by images/layers/plain_parts.py. Thread rule: any thread.
"""

from __future__ import annotations

from contextlib import closing

from regfs.images.lazy.chunk_fetching import ChunkFetcher
from regfs.store.layers.content import OpenPartialContent, Pieces, Span
from regfs.store.layers.sparse_map import SparseMap


class SparseReads:
    """The sparse file *span* of a data file, whose stored bytes are where *found* says and come from *fetcher*."""

    def __init__(self, span: Span, found: SparseMap, fetcher: ChunkFetcher) -> None:
        self._span = span
        self._map = found
        self._fetcher = fetcher

    def ensure(self, start: int, stop: int) -> Pieces:
        """Return the bytes of `[start, stop)` of the data file that are no holes. Waits and raises as fetches do."""
        begin = self._span.offset
        stored = self._map.between(start - begin, stop - begin)
        if not stored:
            return ()
        at = stored[0].at
        archive = Span(self._span.layer, at, stored[-1].at + stored[-1].size - at)
        with closing(OpenPartialContent(archive, self._fetcher.data, ensure=self._fetcher.ensure)) as opened:
            content = opened.read_at(0, archive.size)
        return [(begin + each.offset, content[each.at - at :][: each.size]) for each in stored]
