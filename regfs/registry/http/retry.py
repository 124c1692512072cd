"""When to ask again, and when to leave a host alone.

A failing or throttling host is asked less, not more: waits grow, Retry-After is honoured, and while a host is known
to be down or to refuse, nobody waits for it. Used by exchange.py. Thread rule: HostHealth is shared by all threads.
"""

from __future__ import annotations

import email.utils
import math
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import RateLimited, RegfsError, RegistryUnavailable
from regfs.waiting import deadline

TRANSIENT = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
# Those that say that the host is down, not that this one answer fails: other objects of it may well be had.
DOWN = frozenset({502, 503, 504, 522})
_HOSTS_LIMIT = 1024
_ATTEMPTS_BESIDE_OTHERS = 2


class RetryPolicy(NamedTuple):
    """How often and how long: *attempts* in all, the wait doubling from *base_s* to *cap_s*.

    A throttling host is waited for at most *throttle_s*, a failed one is not asked again for *breaker_s*, and no
    Retry-After is believed for longer than *clock_s*. *tells_next_attempt* is for a process that lives until then.
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    throttle_s: float = 15.0
    breaker_s: float = 5.0
    clock_s: float = 600.0
    tells_next_attempt: bool = True

    def beside_others(self) -> RetryPolicy:
        """Return the policy for a mirror: where there is somebody else to ask, nobody waits for a host that fails."""
        return self._replace(attempts=min(self.attempts, _ATTEMPTS_BESIDE_OTHERS))

    def wait_s(self, attempt: int) -> float:
        """Return how long to wait after failure number *attempt* (1, 2, …): with jitter, so that clients spread."""
        full_s = min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        return full_s * (0.5 + random.random() / 2)  # noqa: S311


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait; None where it says nothing that makes sense."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if seconds > 0 else None


class HostHealth:
    """What is known about each host: until when it wants to be left alone, and whether it just failed."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._not_before: dict[str, float] = {}
        # Why a host failed, and when by the clock.
        self._failures: TTLCache[str, tuple[str, float]] = TTLCache(_HOSTS_LIMIT, policy.breaker_s, timer=clock)

    def admit(self, host: str) -> None:
        """Return when *host* may be asked, after a short wait where one is due.

        Raises RegistryUnavailable where it failed a moment ago, RateLimited where it wants to be left alone longer.
        """
        with self._lock:
            failure = self._failures.get(host)
            now = self._clock()
            wait_s = self._not_before.get(host, -math.inf) - now
        if failure is not None:
            reason, failed = failure
            raise RegistryUnavailable(f"{reason}{self._when(now - failed)}")
        if wait_s > 0:
            self.wait_out(host, wait_s)

    def wait_out(self, host: str, wait_s: float) -> None:
        """Wait *wait_s* seconds for a throttling *host*. Raises RateLimited where that is too long."""
        allowed_s = deadline.current().remaining_s(self._policy.throttle_s)
        if wait_s > allowed_s:
            raise RateLimited(f"{host}: too many requests; it asks to wait {wait_s:.0f} s")
        deadline.current().sleep(wait_s)

    def throttled(self, host: str, wait_s: float) -> None:
        """Leave *host* alone for *wait_s*: until then others are refused at once, not sent."""
        until = self._clock() + min(wait_s, self._policy.clock_s)
        with self._lock:
            if len(self._not_before) >= _HOSTS_LIMIT:
                self._not_before.clear()
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
        """Let every host that was down be asked again; one that asked to be left alone for a time still is."""
        with self._lock:
            self._failures.clear()

    def _when(self, passed_s: float) -> str:
        if not self._policy.tells_next_attempt:
            return ""
        left_s = max(1, math.ceil(self._policy.breaker_s - passed_s))
        return f" (failed {passed_s:.0f} s ago; next attempt in {left_s} s)"
