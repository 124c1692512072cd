"""ByteRoom: bounds the memory of work that goes on in many threads at once; the waiting ends with the deadline.

Used by images/lazy/ for what is fetched of layers. Thread rule: shared by all threads; they are served in the order in
which they came.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from regfs.process.waiting.deadline import Deadline, current


class _Waiting(NamedTuple):
    size: int
    turn: Future[None]
    deadline: Deadline


class ByteRoom:
    """Room for *most* bytes. Work that needs more gets all of it."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take *size* bytes for the block, as soon as there are. Raises WouldBlock, Interrupted, RegistryTimeout."""
        size = min(size, self._most)
        self._take(size)
        try:
            yield
        finally:
            self._give_back(size)

    def _take(self, size: int) -> None:
        waiting = _Waiting(size, Future(), current())
        with self._lock:
            if not self._queue and size <= self._free:
                self._free -= size
                return
            self._queue.append(waiting)
        try:
            waiting.deadline.wait_for(waiting.turn)
        except BaseException:
            # The turn may have come at the moment this thread gave up.
            with self._lock:
                came = waiting.turn.done()
                if not came:
                    self._queue.remove(waiting)
            self._give_back(size if came else 0)
            raise

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._free += size
            while self._queue and self._queue[0].size <= self._free:
                first = self._queue.popleft()
                self._free -= first.size
                first.turn.set_result(None)
            for waiting in self._queue:
                waiting.deadline.moved()  # they come nearer: threads that wait for them must not regard it as a stall
