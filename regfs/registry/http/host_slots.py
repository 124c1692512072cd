"""Limits how many requests one host gets at a time.

Documents and transfers have separate slots, so that eight layers in transfer do not hold up a look-up. A slot is
held until its answer is read or closed. Used by transport.py. Thread rule: shared by all threads; a thread waits under
its deadline, and threads are served in the order of arrival.
"""

from __future__ import annotations

import threading

from regfs.process.waiting import deadline
from regfs.process.waiting.semaphore import Slot, Slots

_HOSTS_LIMIT = 1024


class HostSlots:
    """The slots of every host that was asked, made for its first request."""

    def __init__(self, *, documents: int, transfers: int) -> None:
        self._counts = {False: documents, True: transfers}
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, bool], Slots] = {}

    def take(self, host: str, *, bulk: bool) -> Slot:
        """Return a slot of *host*: one for transfers where *bulk*. Raises WouldBlock, Interrupted, RegistryTimeout."""
        deadline.current().remaining_s(0.0)
        with self._lock:
            slots = self._slots.get((host, bulk))
            if slots is None:
                self._forget_idle()
                slots = self._slots[host, bulk] = Slots(self._counts[bulk])
        return slots.take()

    def _forget_idle(self) -> None:
        """Keep the table small: redirects may lead to ever more hosts."""
        if len(self._slots) >= _HOSTS_LIMIT:
            self._slots = {key: slots for key, slots in self._slots.items() if not slots.is_idle}
