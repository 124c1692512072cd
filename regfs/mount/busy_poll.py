"""Waiting for the kernel's requests: look again for a moment before sleeping. Used by both drivers.

A program that walks a tree asks its next question within microseconds of the last answer. A server that has gone to
sleep by then must be woken, on a virtual machine from a halted core: that took ten times as long as the answer itself
(2.0 s for the second `find` over 40,269 entries on two virtual cores, 0.4 s with this). So after each answer it looks
for 200 us whether there is more, letting whoever wants the core have it in between, and only then sleeps. Where
requests come thick and fast, the cores of those who ask are kept awake too (wakefulness.py).
"""

from __future__ import annotations

import os
import select
import time

from regfs.mount.wakefulness import Wakefulness

_LOOK_NS = 200_000
# So many requests in so short a time are a burst, which is over when nothing has come for a moment.
_BURST = 32
_BURST_NS = 50_000_000
_BURST_OVER_MS = 5


class BusyPoll:
    """What to do between two attempts to read a request. One thread at a time.

    while not is_asked():  wait()
    once it was read:      found()

    Who reads at once instead of asking whether there is something must wait() after an attempt in vain; but to raise
    and catch an error takes Python three microseconds, to ask half of one.
    """

    def __init__(self, descriptor: int, *, sleep_ms: int | None = None, wakefulness: Wakefulness | None = None) -> None:
        """Watch *descriptor*, the connection, which is made non-blocking: answers are taken at once in any case.

        *sleep_ms*: for how long to sleep at most, where something else is to be looked at now and then.
        """
        os.set_blocking(descriptor, False)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._sleep_ms = sleep_ms
        self._end_ns = 0
        self._wakefulness = wakefulness or Wakefulness()
        self._found = 0
        self._begun_ns = 0

    def is_asked(self) -> bool:
        """Tell whether there is a request to be read, or the end of the connection. Never waits."""
        return bool(self._poll.poll(0))

    def wait(self) -> None:
        """Let others have the core for a moment; sleep, once nothing has come for a while, until something does."""
        now_ns = time.monotonic_ns()
        if not self._end_ns:
            self._end_ns = now_ns + _LOOK_NS
        if now_ns < self._end_ns:
            os.sched_yield()
        elif not self._wakefulness.is_held:
            self._poll.poll(self._sleep_ms)
        elif not self._poll.poll(_BURST_OVER_MS):
            self._wakefulness.release()

    def found(self) -> None:
        """Begin to look anew after the next answer."""
        self._end_ns = 0
        self._found += 1
        if self._found == _BURST:
            self._found, begun_ns, self._begun_ns = 0, self._begun_ns, time.monotonic_ns()
            if self._begun_ns - begun_ns < _BURST_NS:
                self._wakefulness.hold()

    def close(self) -> None:
        """Let cores sleep; nothing is waited for any more."""
        self._wakefulness.release()
