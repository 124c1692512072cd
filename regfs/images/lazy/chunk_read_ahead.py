"""Decides how far ahead of each reader of a layer chunks are fetched, and around which reads.

    a new reader                    nothing ahead
    a reader that reads in order    FIRST_AHEAD bytes, then twice as much each time, up to MAX_AHEAD
    small reads near each other     what lies around the second and each later one: a program starts, and reads many
                                    files of a few directories

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
# A read up to this size is a small one. If another was within VICINITY, AROUND bytes before and behind it come with it.
SMALL = 1 << 17
AROUND = 1 << 17
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
    """The places of the latest 64 small reads of one layer that had to fetch something."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: deque[int] = deque(maxlen=_PLACES)

    def note(self, start: int) -> bool:
        """Note a read at *start*, and tell whether another was near it."""
        with self._lock:
            is_near = any(0 < abs(place - start) <= VICINITY for place in self._places)
            self._places.append(start)
        return is_near
