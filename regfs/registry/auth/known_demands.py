"""What each registry demands of a request, remembered for an hour.

What a registry demanded is a hint: the next request brings its token at once, and a refusal corrects the hint.
Used by endpoint_calls.py. Thread rule: shared by all threads; the lock guards the memory, never a request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from cachetools import TTLCache

from regfs.process.clocks import since_boot_s
from regfs.registry.auth.api_roots import ApiRoots
from regfs.registry.auth.challenge import parse_challenges
from regfs.registry.auth.demand import Demand
from regfs.registry.auth.tokens import TokenServers
from regfs.registry.credentials.lookup import Credentials

_REMEMBERED = 4096
_HINT_S = 3600.0
_IN_VAIN_S = 30.0


class KnownDemands:
    """Remembers what each registry demanded, and holds what can answer it."""

    def __init__(
        self,
        credentials: Credentials,
        token_servers: TokenServers,
        roots: ApiRoots,
        *,
        clock: Callable[[], float] = since_boot_s,
    ) -> None:
        self.credentials = credentials
        self.token_servers = token_servers
        self.roots = roots
        self._lock = threading.Lock()
        # By base URL and scopes: Artifactory has a token server for each of its repositories. Without scopes: the
        # registry's last demand, for a first attempt.
        self._demands: TTLCache[tuple[str, tuple[str, ...]], Demand] = TTLCache(_REMEMBERED, _HINT_S, timer=clock)
        self._scopes: TTLCache[tuple[str, tuple[str, ...]], tuple[str, ...]] = TTLCache(
            _REMEMBERED, _HINT_S, timer=clock
        )
        self._in_vain: TTLCache[tuple[str, tuple[str, ...]], bool] = TTLCache(_REMEMBERED, _IN_VAIN_S, timer=clock)

    def demand(self, base: str, asked: tuple[str, ...]) -> Demand | None:
        """Return what the registry at *base* demanded last for *asked*, or for anything."""
        with self._lock:
            return self._demands.get((base, asked)) or self._demands.get((base, ()))

    def learn(self, base: str, asked: tuple[str, ...], challenges: Iterable[str]) -> Demand | None:
        """Remember what WWW-Authenticate headers of the registry at *base* demand for *asked*; return it."""
        demand = Demand.of(parse_challenges(challenges))
        if demand is not None:
            with self._lock:
                self._demands[base, asked] = self._demands[base, ()] = demand
        return demand

    def unlearn(self, base: str, asked: tuple[str, ...], demand: Demand) -> None:
        """Forget *demand*, which cannot be met, so that the next request asks for a fresh challenge."""
        with self._lock:
            for key in ((base, asked), (base, ())):
                if self._demands.get(key) == demand:
                    del self._demands[key]
        self.roots.forget(base)

    def may_renew(self, base: str, asked: tuple[str, ...]) -> bool:
        """Tell whether a new token may help after a kept one was refused: not soon after a new one did not."""
        with self._lock:
            return (base, asked) not in self._in_vain

    def renewed_in_vain(self, base: str, asked: tuple[str, ...]) -> None:
        """Remember that a new token for *asked* was refused like the kept one: the request is at fault."""
        with self._lock:
            self._in_vain[base, asked] = True

    def scopes(self, base: str, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Return the scopes to request for *asked*: more than those if the registry wanted more."""
        with self._lock:
            return self._scopes.get((base, asked), asked)

    def widen(self, base: str, asked: tuple[str, ...], scopes: tuple[str, ...]) -> None:
        """Remember that *asked* needs *scopes*."""
        with self._lock:
            self._scopes[base, asked] = scopes
