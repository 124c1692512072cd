"""Which kept connections are used again: none that was silent for a minute, and none once another one has hung.

A middlebox, a changed network or a suspended machine drops connections without a word: a request on one waits for its
whole time. The kept connections of a host mostly share that fate. Used by connecting.py and transport.py. Thread rule:
any thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from cachetools import TTLCache

from regfs.process.clocks import since_boot_s

SILENT_S = 60.0
_HOSTS_LIMIT = 1024


class KeptConnections:
    """When the connections to each host are trusted, by *clock*, in seconds."""

    def __init__(self, *, clock: Callable[[], float] = since_boot_s) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Since when only newer ones are trusted; those that are older than the entry's life were silent for too long.
        self._distrusted: TTLCache[str, float] = TTLCache(_HOSTS_LIMIT, SILENT_S, timer=clock)

    def now_s(self) -> float:
        """Return the time at which a connection answers now, for is_trusted()."""
        return self._clock()

    def is_trusted(self, host: str, answered_s: float | None) -> bool:
        """Tell whether a connection to *host* may be used that answered last at *answered_s*; None: a new one."""
        if answered_s is None:
            return True
        with self._lock:
            since_s = self._distrusted.get(host, -math.inf)
        return answered_s > since_s and self._clock() - answered_s < SILENT_S

    def distrust(self, host: str) -> None:
        """Use no connection to *host* again that is kept now: one has hung, or was closed."""
        with self._lock:
            self._distrusted[host] = self._clock()
