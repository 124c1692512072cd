"""How many requests one host gets at a time.

Documents and transfers have slots of their own, so that eight layers in transfer do not hold up a look-up. A slot is
held until its answer is read or closed. Used by transport.py. Thread rule: shared by all threads; a waiting thread
is patient, and is served in the order of arrival.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

from regfs import patience

_HOSTS_LIMIT = 1024


class Slot:
    """The right to one request; `give_back` may be called more than once."""

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def give_back(self) -> None:
        """Let the next one go."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


class Slots:
    """A counting semaphore whose waiting ends with the thread's patience."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._count = self._free = count
        self._queue: deque[Future[None]] = deque()

    def take(self) -> Slot:
        """Return a slot as soon as there is one. Raises MustWait, Interrupted, RegistryTimeout."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return Slot(self)
            turn: Future[None] = Future()
            self._queue.append(turn)
        try:
            patience.current().wait_for(turn)
        except BaseException:
            # The turn may have come in the moment we gave up: then it is passed on.
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
        """Whether nobody has a slot."""
        return self._free == self._count

    def release(self) -> None:
        """Pass a slot to the one who has waited longest, or keep it free."""
        with self._lock:
            turn = self._queue.popleft() if self._queue else None
            if turn is None:
                self._free += 1
                return
            turn.set_result(None)


class HostSlots:
    """The slots of every host that was asked, made when first needed."""

    def __init__(self, *, documents: int, transfers: int) -> None:
        self._counts = {False: documents, True: transfers}
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, bool], Slots] = {}

    def take(self, host: str, *, bulk: bool) -> Slot:
        """Return a slot of *host*: one for transfers where *bulk*. Raises MustWait, Interrupted, RegistryTimeout."""
        patience.current().remaining_s(0.0)
        with self._lock:
            slots = self._slots.get((host, bulk))
            if slots is None:
                self._forget_idle()
                slots = self._slots[host, bulk] = Slots(self._counts[bulk])
        return slots.take()

    def _forget_idle(self) -> None:
        """Keep the table small where redirects lead to ever new hosts."""
        if len(self._slots) >= _HOSTS_LIMIT:
            self._slots = {key: slots for key, slots in self._slots.items() if not slots.is_idle}
