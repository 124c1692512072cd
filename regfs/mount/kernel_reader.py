"""Waiting for the kernel's requests: look again for a moment before sleeping.

A program that walks a tree asks its next question within microseconds of the last answer. A server that has gone to
sleep by then must be woken, on a virtual machine from a halted core: that took ten times as long as the answer itself
(2.0 s for the second `find` over 40,269 entries on two virtual cores, 0.4 s with this). So after each answer it looks
for 200 us whether there is more, letting whoever wants the core have it in between, and only then sleeps.
Used by kernel_session.py; one thread.
"""

from __future__ import annotations

import os
import select
import time

_LOOK_NS = 200_000


class RequestReader:
    """Reads from *descriptor*, the connection, which it makes non-blocking: answers are taken at once in any case."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read_into(self, buffers: list[bytearray]) -> int:
        """Return the size of the next request, read into *buffers*; waits for it. Raises OSError at the end."""
        try:
            return os.readv(self._descriptor, buffers)
        except BlockingIOError:
            end_ns = time.monotonic_ns() + _LOOK_NS
        while True:
            os.sched_yield()
            try:
                return os.readv(self._descriptor, buffers)
            except BlockingIOError:
                if time.monotonic_ns() > end_ns:
                    self._poll.poll()
