"""Looks for rot in the background (--scrub): checks each file of a cache at intervals, the oldest check first.

The time of the last check is an extended attribute of the file (user.regfs.checked, seconds since 1970), which all
daemons of a cache see; on a disk without extended attributes each daemon remembers it. Other work has precedence: the
thread has idle priority for the disk and the least for the cores, and rests after each file for as long as the file
took. What is wrong is dropped, and fetched again when it is next needed. Used by app/upkeep.py. Thread rule: run() in
a thread of its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cachetools import LRUCache

from regfs.errors import CacheFailure
from regfs.process.syscalls import be_idle
from regfs.store.files.failures import failures_of
from regfs.store.verify import Check, Problem, checks

log = logging.getLogger(__name__)

_CHECKED = "user.regfs.checked"
_REMEMBERED = 100_000
_LEAST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 30.0
# The cache is searched for files that are due once in this share of their age.
_LOOKS = 20
_LOOK_S = (1.0, 3600.0)


class Scrub:
    """Checks each file of the cache at *root* every *age_s* seconds.

    *checked* is called with the number of bytes of each checked file, *found* with each problem that was dropped.
    """

    def __init__(
        self, root: Path, *, age_s: float, checked: Callable[[int], None], found: Callable[[Problem], None]
    ) -> None:
        self._root = root
        self._age_s = age_s
        self._checked = checked
        self._found = found
        self._remembered: LRUCache[tuple[str, int], float] = LRUCache(_REMEMBERED)

    def run(self, ended: threading.Event) -> None:
        """Check the files that are due, until *ended* is set."""
        be_idle()
        pause_s = min(max(self._age_s / _LOOKS, _LOOK_S[0]), _LOOK_S[1])
        while not ended.wait(pause_s):
            try:
                self.check_due(ended)
            except CacheFailure as failure:
                log.warning("the cache is not checked now: %s", failure)

    def check_due(self, ended: threading.Event) -> None:
        """Check the files that are due now. Raises CacheFailure where the cache cannot be read."""
        with failures_of(self._root):
            due = [(since, check) for check in checks(self._root) if (since := self._since(check)) <= self._due_s()]
        for _, check in sorted(due, key=lambda each: each[0]):
            began = time.monotonic()
            if self._since(check) <= self._due_s():  # another daemon may have checked it
                self._check(check)
            if ended.wait(min(max(time.monotonic() - began, _LEAST_PAUSE_S), _LONGEST_PAUSE_S)):
                return

    def _check(self, check: Check) -> None:
        with failures_of(check.path):
            problem = check.run(drop=True)
        self._checked(check.size)
        if problem is not None:
            self._found(problem)
            return
        now = time.time()
        with suppress(OSError):  # evicted meanwhile, read-only, or without extended attributes
            self._remembered[self._key(check)] = now
            os.setxattr(check.path, _CHECKED, str(int(now)).encode())

    def _since(self, check: Check) -> float:
        """Return when the files of *check* were checked last, in seconds since 1970; 0 for never."""
        told = 0.0
        with suppress(OSError, ValueError):
            told = float(os.getxattr(check.path, _CHECKED))
        with suppress(OSError):
            told = max(told, self._remembered.get(self._key(check), 0.0))
        # A check in the future counts as none: the clock was set back since.
        return told if told <= time.time() else 0.0

    def _key(self, check: Check) -> tuple[str, int]:
        return str(check.path), os.stat(check.path).st_ino

    def _due_s(self) -> float:
        return time.time() - self._age_s
