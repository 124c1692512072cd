"""Fetches the rest of lazy layers in the background, one layer after the other (--background-fetch).

layer_cache.py decides what is fetched, chunk_fetching.py waits for reads of users. A layer that fails is skipped until
its image is opened again. Used by layer_cache.py. Thread rule: any thread; it starts one thread, which ends when the
queue is empty.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from cachetools import TTLCache

from regfs.errors import Interrupted, OutOfThreads, RegfsError
from regfs.process.threads import start_thread
from regfs.process.waiting.deadline import Deadline, under

log = logging.getLogger(__name__)

_MOST_WAITING = 1024
# A layer is checked for missing bytes at most once in so many seconds, however often its image is opened.
_WANTED_S = 60.0


class Fetching(NamedTuple):
    """How much of a lazy layer is fetched beyond what is read.

    *background*: all of it, once its image is opened. *rest_from*: the rest, once this share of its bytes is fetched
    (1: never).
    """

    background: bool = False
    rest_from: float = 1.0


ONLY_WHAT_IS_READ = Fetching()


class BackgroundFetch:
    """The queue of layers to fetch, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadline = Deadline()
        self._wanted: TTLCache[Hashable, bool] = TTLCache(_MOST_WAITING, _WANTED_S)
        self._waiting: OrderedDict[Hashable, Callable[[], None]] = OrderedDict()
        self._is_running = False

    def want(self, key: Hashable, fetch: Callable[[], None]) -> None:
        """Queue *fetch*, unless *key* was queued within the last minute. Does not wait."""
        with self._lock:
            if self._deadline.cancelled or key in self._wanted or len(self._waiting) >= _MOST_WAITING:
                return
            self._wanted[key] = True
            self._waiting[key] = fetch
            if self._is_running:
                return
            self._is_running = True
        try:
            start_thread(self._run, name="background fetch")
        except OutOfThreads as shortage:
            log.warning("%s", shortage)
            with self._lock:
                self._is_running = False

    def stop(self) -> None:
        """Begin no further request; the running one ends by itself."""
        with self._lock:
            self._waiting.clear()
        self._deadline.cancel()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                key, fetch = self._waiting.popitem(last=False)
            try:
                with under(self._deadline):
                    fetch()
            except Interrupted:
                log.debug("%s: not fetched any further", key)
            except RegfsError as error:
                log.info("the background fetch of %s ends: %s", key, error)
            except Exception:  # a bug must not end the fetch of all other layers
                log.exception("the background fetch of %s failed", key)
            del fetch
