"""Clocks that neither a suspended machine nor a clock that is set leads astray.

    since_boot_s()        for how long an answer holds: it goes on in a suspended machine, where time.monotonic() stops
    Sleep                 whether the machine was suspended since the last question
    unjumped_time_ns()    for ages on the disk: a clock that was set forward does not make everything old

Deadlines use time.monotonic(): what waits while the machine is suspended has not waited. Sources: clock_gettime(2).
Used by all packages that remember answers, and by the budget of the cache. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger(__name__)

_S = 10**9
# A clock that is kept right by NTP moves by less at once.
_STEP_NS = 3600 * _S
# A clock that was set is believed after this time.
_BELIEVED_AFTER_NS = 24 * 3600 * _S
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot_s() -> float:
    """Return the seconds since the machine was started; where the system cannot tell, without those of a suspend."""
    return time.clock_gettime(_CLOCK)


class Sleep:
    """How long the machine was suspended. One thread."""

    def __init__(self) -> None:
        self._known_s = _suspended_s()

    def passed_s(self) -> float:
        """Return for how many seconds the machine was suspended since this was asked last, or since the start."""
        known_s, self._known_s = self._known_s, _suspended_s()
        return self._known_s - known_s


def _suspended_s() -> float:
    """Return for how many seconds the machine was suspended since its boot."""
    return since_boot_s() - time.monotonic()


class UnjumpedTime:
    """The time in nanoseconds since 1970, which follows a jump forward of the clock a day later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen_ns, self._seen_at_ns = _now()
        self._jumped_at_ns: int | None = None

    def ns(self) -> int:
        """Return the time; never later than the clock has it."""
        with self._lock:
            now_ns, at_ns = _now()
            expected_ns = self._seen_ns + at_ns - self._seen_at_ns
            if now_ns - expected_ns > _STEP_NS:
                if self._jumped_at_ns is None:
                    self._jumped_at_ns = at_ns
                    log.warning("the clock was set forward by %d hours: ages in the cache follow in a day",
                                (now_ns - expected_ns) // (3600 * _S))  # fmt: skip
                if at_ns - self._jumped_at_ns < _BELIEVED_AFTER_NS:
                    return expected_ns
            self._seen_ns, self._seen_at_ns, self._jumped_at_ns = now_ns, at_ns, None
            return now_ns


def _now() -> tuple[int, int]:
    """Return the time by the clock, and since the boot, in nanoseconds."""
    return time.time_ns(), time.clock_gettime_ns(_CLOCK)


_unjumped = UnjumpedTime()


def unjumped_time_ns() -> int:
    """Return the time of this process's UnjumpedTime."""
    return _unjumped.ns()
