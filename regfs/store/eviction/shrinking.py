"""What the cache holds beyond its limit: kept while it is in use, noted once, and evicted some time after.

An image with a layer larger than the limit can be listed and read: what is in use may exceed the limit, as long as the
disk has room. From then on a thread tries now and then to evict what was not used for a while, until the limit holds
again. Used by the budget. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from regfs.errors import CacheFailure, OutOfThreads
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)

LATELY_S = 60.0
"""Seconds. What was used within them counts as in use: between two commands an image may have nothing open."""
_SLOWER = 1.5
_SLOWEST_S = 600.0


class Excess:
    """Brings the cache back to its limit. *shrink* evicts what it can, and returns whether the limit holds again."""

    def __init__(self, shrink: Callable[[], bool], *, lately_s: float = LATELY_S) -> None:
        self.lately_s = lately_s
        self._shrink = shrink
        self._lock = threading.Lock()
        self._is_watched = False

    def watch(self) -> bool:
        """Start a thread that shrinks the cache until its limit holds; return False if it runs already."""
        with self._lock:
            if self._is_watched:
                return False
            try:
                start_thread(self._shrink_in_time, name="regfs-cache-shrink")
            except OutOfThreads as shortage:  # the next writer sees it again
                log.debug("the cache is not watched: %s", shortage)
            else:
                self._is_watched = True
            return True

    def _shrink_in_time(self) -> None:
        pause_s = self.lately_s
        while True:
            time.sleep(pause_s)
            pause_s = min(_SLOWER * pause_s, max(_SLOWEST_S, self.lately_s))
            try:
                holds = self._shrink()
            except CacheFailure as failure:
                log.warning("the cache holds more than it may: %s", failure)
                continue
            if holds:
                with self._lock:
                    self._is_watched = False
                return
