"""Docker Hub's namespaces, listed by the Hub's own API for those who opted in (`--hub-listing`).

The Hub's registry lists nothing. Its API does, on another host and with limits of its own, so it is never asked unless
the user said so, and its failures only mean that what is known is listed. Used by tree/namespace.py; any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from cachetools import TTLCache

from regfs.errors import Interrupted, RegfsError, WouldBlock
from regfs.waiting.flights import Flights

log = logging.getLogger(__name__)

_TTL_S = 300.0
_NAMESPACES_KEPT = 256


class HubListing:
    """The repositories of the Hub's namespaces. *ask* returns their paths (`library/debian`); it may block."""

    def __init__(self, ask: Callable[[str], Sequence[str]], flights: Flights) -> None:
        self._ask = ask
        self._flights = flights
        self._lock = threading.Lock()
        self._known: TTLCache[str, tuple[str, ...]] = TTLCache(_NAMESPACES_KEPT, _TTL_S)

    def repositories(self, namespace: str) -> Sequence[str]:
        """Return the paths of the repositories in *namespace*; none where the Hub does not tell. May block."""
        with self._lock:
            known = self._known.get(namespace)
        return known if known is not None else self._flights.run(("hub", namespace), lambda: self._fetch(namespace))

    def has(self, path: str) -> bool:
        """Tell whether *path* was in a list that was fetched lately; asks nothing."""
        with self._lock:
            return path in self._known.get(path.partition("/")[0], ())

    def refresh(self) -> None:
        """Ask again for what is wanted from now on."""
        with self._lock:
            self._known.clear()

    def _fetch(self, namespace: str) -> tuple[str, ...]:
        try:
            names = tuple(self._ask(namespace))
        except (WouldBlock, Interrupted):
            raise
        except RegfsError as failure:
            log.info("Docker Hub does not list %s: %s", namespace, failure)
            names = ()
        with self._lock:
            self._known[namespace] = names
        return names
