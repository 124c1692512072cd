"""A counting semaphore whose waiting ends with the thread's deadline.

Used by registry/http/host_slots.py for the requests to one host. Thread rule: shared by all threads; they are served in
the order in which they came.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

from regfs.process.waiting import deadline


class Slot:
    """The right to one request; `give_back` may be called more than once."""

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def give_back(self) -> None:
        """Give the slot to the thread that has waited longest."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


class Slots:
    """A counting semaphore whose waiting ends with the thread's deadline."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._count = self._free = count
        self._queue: deque[Future[None]] = deque()

    def take(self) -> Slot:
        """Return a slot as soon as there is one. Raises WouldBlock, Interrupted, RegistryTimeout."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return Slot(self)
            turn: Future[None] = Future()
            self._queue.append(turn)
        try:
            deadline.current().wait_for(turn)
        except BaseException:
            # The slot may have come at the moment this thread gave up: pass it on.
            with self._lock:
                came = turn.done()
                if not came:
                    self._queue.remove(turn)
            if came:
                self.release()
            raise
        return Slot(self)

    @property
    def is_idle(self) -> bool:
        """Whether no slot is taken."""
        return self._free == self._count

    def release(self) -> None:
        """Give a slot to the thread that has waited longest, or keep it free."""
        with self._lock:
            turn = self._queue.popleft() if self._queue else None
            if turn is None:
                self._free += 1
                return
            turn.set_result(None)
