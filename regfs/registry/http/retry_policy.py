"""How often a request is sent again, and after which wait. Used by retrying.py and blobs.py. Pure; any thread."""

from __future__ import annotations

import email.utils
import random
import time
from typing import NamedTuple

TRANSIENT = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
# Those that say that the host is down, not that this one answer fails: other objects of it may well be had.
DOWN = frozenset({502, 503, 504, 522})
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
