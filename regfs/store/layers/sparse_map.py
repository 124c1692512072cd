"""SparseMap: where a layer's tar stream has the bytes of a sparse file.

GNU's dialects store the extents of such a file alone, one behind the other. Its bytes are read from there where the
data file of the layer, which has them with their holes, is not here. The layer's index keeps the map. Used by
images/layers/plain_parts.py. A value; any thread.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple


class Stored(NamedTuple):
    """*size* bytes of a file from *offset* on, which are at byte *at* of the tar stream."""

    offset: int
    size: int
    at: int


class SparseMap(NamedTuple):
    """A file of *size* bytes: what is *stored* of it, in order and without gaps in the tar stream, and zeros."""

    size: int
    stored: Sequence[Stored]

    @staticmethod
    def of(size: int, at: int, extents: Iterable[tuple[int, int]]) -> SparseMap:
        """Return the map of a file whose *extents*, each an offset and a size, begin at byte *at* of the tar stream."""
        return SparseMap(size, list(_placed(at, extents)))

    @staticmethod
    def unpacked(size: int, at: int, packed: bytes) -> SparseMap:
        """Return the map of which packed() returned these."""
        numbers = [int(each) for each in zlib.decompress(packed).split(b",") if each]
        return SparseMap.of(size, at, zip(numbers[::2], numbers[1::2], strict=True))

    def packed(self) -> tuple[int, int, bytes]:
        """Return the size, the place in the tar stream, and the extents as PAX headers have them, compressed."""
        numbers = ",".join(f"{each.offset},{each.size}" for each in self.stored)
        return self.size, self.range[0], zlib.compress(numbers.encode(), 1)

    @property
    def range(self) -> tuple[int, int]:
        """The range `[start, stop)` of the tar stream that has all that is stored."""
        if not self.stored:
            return 0, 0
        last = self.stored[-1]
        return self.stored[0].at, last.at + last.size

    def between(self, start: int, stop: int) -> list[Stored]:
        """Return what is stored of `[start, stop)` of the file."""
        found: list[Stored] = []
        first = bisect_right(self.stored, start, key=lambda each: each.offset)
        for each in islice(self.stored, max(0, first - 1), None):
            if each.offset >= stop:
                break
            begin, end = max(each.offset, start), min(each.offset + each.size, stop)
            if begin < end:
                found.append(Stored(begin, end - begin, each.at + begin - each.offset))
        return found


def _placed(at: int, extents: Iterable[tuple[int, int]]) -> Iterator[Stored]:
    for offset, size in extents:
        if size:
            yield Stored(offset, size, at)
        at += size
