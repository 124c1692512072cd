"""Decides how far ahead of each reader of a layer chunks are fetched, and around which reads.

    a new reader                    nothing ahead
    a reader that reads in order    FIRST_AHEAD bytes, then twice as much each time, up to MAX_AHEAD
    a small read near another       FIRST_AROUND bytes before and behind it, then four times as much each time, up to
                                    MAX_AROUND: a program starts, and reads many files of a few directories
    a small read after MANY others  LEAST_AROUND bytes before and behind it

Used by chunk_fetching.py. Thread rule: any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

FIRST_AHEAD = 1 << 18
MAX_AHEAD = 8 << 20
# A reader that skips no more than this still reads in order: it skips a header or a file.
_NEAR = 1 << 16
_READERS = 32
# A read up to this size is a small one, and a chunk up to this size comes with it. Others within VICINITY are near it.
SMALL = 1 << 18
LEAST_AROUND = 1 << 16
FIRST_AROUND = 1 << 17
MAX_AROUND = 1 << 20
_GROWTH = 4
# So many small reads tell that further ones will come: in directories from which nothing was read yet.
MANY = 4
VICINITY = 4 << 20
_PLACES = 64


class ReadAhead:
    """The latest 32 readers of one layer: where each will continue, and how far ahead was fetched for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, int] = OrderedDict()

    def of_reader(self, start: int, most: int) -> int:
        """Return how many bytes to fetch ahead of a reader that continues at *start*: up to *most*, 0 for a new one."""
        with self._lock:
            before = next((at for at in self._readers if at <= start <= at + _NEAR), None)
            return 0 if before is None else min(max(FIRST_AHEAD, 2 * self._readers.pop(before)), most)

    def note(self, stop: int, ahead: int) -> None:
        """Note that chunks up to *stop* are fetched for a reader, *ahead* bytes of them ahead of its read."""
        with self._lock:
            self._readers[stop] = ahead
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)


class SmallReads:
    """The latest 64 small reads of one layer that had to fetch something: where, and how much around them came too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: deque[tuple[int, int]] = deque(maxlen=_PLACES)

    def note(self, start: int) -> int:
        """Note a read at *start*, and return how many bytes before and behind it to fetch."""
        with self._lock:
            near = [around for place, around in self._places if 0 < abs(place - start) <= VICINITY]
            if near:
                around = min(max(FIRST_AROUND, _GROWTH * max(near)), MAX_AROUND)
            else:
                around = LEAST_AROUND if len(self._places) >= MANY else 0
            self._places.append((start, around))
        return around
