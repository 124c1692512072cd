"""Busy polling: poll for the next request for 200 us before sleeping. Used by both drivers.

A program that walks a tree sends its next request within microseconds of the last answer. A daemon that sleeps by then
must be woken, on a virtual machine from a halted core; that took ten times as long as the answer itself: the second
`find` over 40,269 entries took 2.0 s on two virtual cores, 0.4 s with this. So after each answer the daemon polls for
200 us, yields the core to any other thread in between, and only then sleeps. The price is 200 us of one core's time
after the last request of each burst. With --low-latency the cores of the clients are kept awake too (cpu_latency.py).
"""

from __future__ import annotations

import os
import select
import time

from regfs.mount.cpu_latency import CpuLatencyLimit

_POLL_NS = 200_000
# So many requests in so short a time are a burst, which ends when no request has come for a moment.
_BURST = 32
_BURST_NS = 50_000_000
_BURST_OVER_MS = 5


class BusyPoll:
    """Decides between polling and sleeping while no request is there. One thread at a time.

    while not is_ready():  wait()
    once it was read:      found()

    A driver that reads without is_ready() calls wait() when there was nothing to read. is_ready() takes half a
    microsecond; raising and catching the error of a failed read takes three.
    """

    def __init__(
        self, descriptor: int, *, sleep_ms: int | None = None, latency_limit: CpuLatencyLimit | None = None
    ) -> None:
        """Watch *descriptor*, the connection, and make it non-blocking.

        wait() sleeps for *sleep_ms* at most. *latency_limit* is held during bursts; None: cores sleep as they like.
        """
        os.set_blocking(descriptor, False)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._sleep_ms = sleep_ms
        self._end_ns = 0
        self._latency_limit = latency_limit
        self._found = 0
        self._begun_ns = 0

    def is_ready(self) -> bool:
        """Return whether a request can be read, or the end of the connection. Never waits."""
        return bool(self._poll.poll(0))

    def wait(self) -> None:
        """Yield the core; once nothing has come for 200 us, sleep until something does."""
        now_ns = time.monotonic_ns()
        if not self._end_ns:
            self._end_ns = now_ns + _POLL_NS
        if now_ns < self._end_ns:
            os.sched_yield()
        elif self._latency_limit is None or not self._latency_limit.is_held:
            self._poll.poll(self._sleep_ms)
        elif not self._poll.poll(_BURST_OVER_MS):
            self._latency_limit.release()

    def found(self) -> None:
        """Poll for another 200 us after the next answer; count the request for the burst."""
        self._end_ns = 0
        if self._latency_limit is None:
            return
        self._found += 1
        if self._found == _BURST:
            self._found, begun_ns, self._begun_ns = 0, self._begun_ns, time.monotonic_ns()
            if self._begun_ns - begun_ns < _BURST_NS:
                self._latency_limit.hold()

    def close(self) -> None:
        """End the burst, and let cores sleep: no further request will be read."""
        if self._latency_limit is not None:
            self._latency_limit.release()
