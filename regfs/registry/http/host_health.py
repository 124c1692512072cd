"""Which hosts are down or want a pause: such a host gets no requests for some seconds.

Used by retrying.py. Thread rule: shared by all threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from cachetools import TLRUCache, TTLCache

from regfs.errors import RateLimited, RegfsError, RegistryUnavailable
from regfs.process.waiting import deadline
from regfs.registry.http.retry_policy import RetryPolicy

_HOSTS_LIMIT = 1024


class HostHealth:
    """Remembers of each host until when it asked for a pause, and whether it just failed."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        # Until when each host asked for a pause, by the clock.
        self._not_before: TLRUCache[str, float] = TLRUCache(_HOSTS_LIMIT, lambda _host, until, _now: until, timer=clock)
        # Why a host failed, and when by the clock.
        self._failures: TTLCache[str, tuple[str, float]] = TTLCache(_HOSTS_LIMIT, policy.breaker_s, timer=clock)

    def admit(self, host: str) -> None:
        """Return as soon as *host* may be asked; waits a short pause out.

        Raises RegistryUnavailable if the host failed a moment ago, RateLimited if it asked for a longer pause.
        """
        with self._lock:
            failure = self._failures.get(host)
            now = self._clock()
            wait_s = self._not_before.get(host, -math.inf) - now
        if failure is not None:
            reason, failed = failure
            raise RegistryUnavailable(f"{reason}{self._when(now - failed)}")
        if wait_s > 0:
            self._wait_out(host, wait_s)

    def _wait_out(self, host: str, wait_s: float) -> None:
        """Wait *wait_s* seconds for a throttling *host*. Raises RateLimited if that is too long."""
        allowed_s = deadline.current().remaining_s(self._policy.throttle_s)
        if wait_s > allowed_s:
            raise RateLimited(f"{host}: too many requests; it asks to wait {wait_s:.0f} s")
        deadline.current().sleep(wait_s)

    def throttled(self, host: str, wait_s: float) -> None:
        """Send nothing to *host* for *wait_s* seconds: requests are refused here until then."""
        until = self._clock() + min(wait_s, self._policy.clock_s)
        with self._lock:
            self._not_before[host] = max(until, self._not_before.get(host, -math.inf))

    def failed(self, host: str, error: RegfsError) -> None:
        """Remember that *host* is down, for a moment."""
        with self._lock:
            self._failures[host] = str(error), self._clock()

    def answered(self, host: str) -> None:
        """Forget that *host* was down."""
        with self._lock:
            self._failures.pop(host, None)

    def forget_failures(self) -> None:
        """Allow requests to every host that was down. A host that asked for a pause still gets it."""
        with self._lock:
            self._failures.clear()

    def _when(self, passed_s: float) -> str:
        if not self._policy.tells_next_attempt:
            return ""
        left_s = max(1, math.ceil(self._policy.breaker_s - passed_s))
        return f" (failed {passed_s:.0f} s ago; next attempt in {left_s} s)"
