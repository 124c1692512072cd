"""Counts the reads of users that wait for a registry now, so that background fetches can give way to them.

It also bounds the memory of all requests for parts of layers.

Used by chunk_fetching.py; made by partial_layers.py, for all layers of a cache. Thread rule: any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from regfs.process.waiting.byte_room import ByteRoom
from regfs.process.waiting.deadline import current

_IN_FLIGHT = 48 << 20
"""So many bytes of layers are requested at once. Each is in memory twice or three times until it is verified."""


class Foreground:
    """Counts the waiting reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._none: Future[None] | None = None
        self.in_flight = ByteRoom(_IN_FLIGHT)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count one read while the block runs."""
        with self._lock:
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                none, self._none = (self._none, None) if self._count == 0 else (None, self._none)
            if none is not None:
                none.set_result(None)

    def wait_for_none(self) -> None:
        """Wait until no read waits. Raises WouldBlock, Interrupted, RegistryTimeout by the thread's deadline."""
        while True:
            with self._lock:
                if self._count == 0:
                    return
                none = self._none = self._none or Future()
            current().moved()  # threads that wait for this flight must not regard the pause as a stall
            current().wait_for(none)
