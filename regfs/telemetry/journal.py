"""The recent failures of a mount: each is logged once and shown in `.regfs/errors`.

The drivers record every failure that they answer with an errno. The same failure within a minute is counted and not
logged again, so that a crawler on a dead registry cannot fill the disk with logs. Thread rule: one lock; any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from regfs.errors import RegfsError
from regfs.model.userinfo import without_userinfo
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

_KEPT = 200
_QUIET_S = 60.0


@dataclass(slots=True)
class Failure:
    """One kind of failure: its text, its first and last time (seconds since 1970), and how often."""

    text: str
    first: float
    last: float
    times: int


class Journal:
    """Remembers the last 200 different failures."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, Failure] = OrderedDict()

    def record(self, what: str, error: RegfsError) -> None:
        """Note that *what* (an operation and its object) failed with *error*; log it unless it was just logged."""
        self._stats.count("errors")
        self._keep(f"{what}: {type(error).__name__}: {error}", logging.WARNING)

    def note(self, text: str) -> None:
        """Note an event that is no failure but may surprise users; log it unless it was just logged."""
        self._keep(text, logging.INFO)

    def _keep(self, text: str, level: int) -> None:
        text = _one_line(without_userinfo(text))
        now = time.time()
        with self._lock:
            failure = self._failures.pop(text, None) or Failure(text, now, 0.0, 0)
            is_new = abs(now - failure.last) > _QUIET_S  # the clock may have been set back
            failure.last, failure.times = now, failure.times + 1
            self._failures[text] = failure
            while len(self._failures) > _KEPT:
                self._failures.popitem(last=False)
        if is_new:
            log.log(level, "%s", text)

    def texts(self) -> list[str]:
        """Return the failures and notes, the oldest first."""
        with self._lock:
            return list(self._failures)

    def text(self) -> str:
        """Return one line for each failure, the oldest first: last time, how often, what."""
        with self._lock:
            failures = list(self._failures.values())
        return "".join(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(f.last))} x{f.times} {f.text}\n" for f in failures
        )


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
