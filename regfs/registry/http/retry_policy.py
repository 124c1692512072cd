"""How often a request is sent again, and after which wait. Pure; any thread.

Used by retrying.py, transfer_failures.py and blobs.py.
"""

from __future__ import annotations

import email.utils
import random
import time
from contextlib import suppress
from typing import NamedTuple

TRANSIENT = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
# Of these, the ones that mean the host is down. After the others its other objects may still be available.
DOWN = frozenset({502, 503, 504, 522})
_ATTEMPTS_BESIDE_OTHERS = 2
_NO_DATE = (ValueError, TypeError, OverflowError, IndexError)


class RetryPolicy(NamedTuple):
    """How often and how long: *attempts* in all, the wait doubling from *base_s* to *cap_s*.

    A request waits for a throttling host for at most *throttle_s*; a failed host gets no request for *breaker_s*; a
    longer Retry-After than *clock_s* counts as that. With *tells_next_attempt*, messages say when a failed host will be
    asked again: for a process that lives until then.
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    throttle_s: float = 15.0
    breaker_s: float = 5.0
    clock_s: float = 600.0
    tells_next_attempt: bool = True

    def beside_others(self) -> RetryPolicy:
        """Return the policy for a mirror: fewer attempts, because another endpoint can be asked."""
        return self._replace(attempts=min(self.attempts, _ATTEMPTS_BESIDE_OTHERS))

    def wait_s(self, attempt: int) -> float:
        """Return how long to wait after failure number *attempt* (1, 2, …), with jitter, so that clients spread."""
        full_s = min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        return full_s * (0.5 + random.random() / 2)  # noqa: S311


def retry_after_s(value: str | None, *, date: str | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait; None if there is none that makes sense.

    *date* is the Date of the same answer: a time counts from there, because the clock here may be wrong.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        until_s = _timestamp(value)
    except _NO_DATE:
        return None
    with suppress(*_NO_DATE):
        return max(0.0, until_s - (time.time() if date is None else _timestamp(date))) or None
    return max(0.0, until_s - time.time()) or None


def _timestamp(date: str) -> float:
    """Return the seconds since 1970 of a date as HTTP has it. Raises one of _NO_DATE."""
    return email.utils.parsedate_to_datetime(date).timestamp()
