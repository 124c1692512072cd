"""The root of a registry's API, `/v2/`: its URL, and what it answers to a request without credentials.

Its answer settles two questions: whether the address speaks TLS, and what the registry demands.
Source: distribution-spec, "Determining Support". Used by endpoint_calls.py and known_demands.py. Thread rule:
shared by all threads; a root is asked once, however many threads wait for its answer (the flights of
process/waiting/single_flight.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from cachetools import LRUCache, TLRUCache

from regfs.errors import (
    BadConfiguration,
    Interrupted,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    WouldBlock,
)
from regfs.process.waiting import deadline
from regfs.process.waiting.single_flight import Flights
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.error_answers import refusal
from regfs.registry.http.messages import Request
from regfs.registry.http.redirects import REDIRECTS
from regfs.registry.http.retrying import RetryingSender
from regfs.registry.http.sockets import ConnectFailed, ConnectTimeout, NotTls, TlsFailed

log = logging.getLogger(__name__)

_KEPT = 1024
_ANSWER_KEPT_S = 300.0
# A failure is kept just long enough that one walk of a tree does not repeat it for each name.
_FAILURE_KEPT_S = 5.0
_SLOWNESS_KEPT_S = 60.0
# The host cannot be reached or trusted: the request that waits for its root would fail in the same way.
_HOST_FAILURES = (ConnectFailed, ConnectTimeout, TlsFailed, BadConfiguration)


class Root(NamedTuple):
    """A root's answer: the WWW-Authenticate headers of a 401, or the failure."""

    challenges: tuple[str, ...] = ()
    failure: RegfsError | None = None
    has_answered: bool = True

    @property
    def is_silent(self) -> bool:
        """Whether the root did not say what it demands, for a reason that will pass."""
        is_passing = isinstance(self.failure, RegistryUnavailable | RegistryTimeout | RateLimited)
        return is_passing or not self.has_answered


class ApiRoots:
    """Asks the roots of APIs, always without credentials, and remembers their answers for minutes."""

    def __init__(self, sender: RetryingSender, flights: Flights, *, clock: Callable[[], float]) -> None:
        self._sender = sender
        self._flights = flights
        self._lock = threading.Lock()
        self._bases: LRUCache[str, str] = LRUCache(_KEPT)
        self._said: TLRUCache[str, Root] = TLRUCache(_KEPT, _expiry, timer=clock)

    def base(self, endpoint: Endpoint) -> str:
        """Return the URL of *endpoint*'s API. Its scheme is settled before any credential is sent.

        If plain http is allowed as a fallback, https is tried first; the decision stays. Blocks on the network; raises
        what RetryingSender.probe raises.
        """
        if endpoint.plain_http != "fallback":
            return endpoint.base
        with self._lock:
            known = self._bases.get(endpoint.base)
        if known is not None:
            return known
        base = self._settled(endpoint)
        with self._lock:
            return self._bases.setdefault(endpoint.base, base)

    def known(self, base: str) -> Root | None:
        """Return what the root of the API at *base* said in the last minutes, None if it was not asked."""
        with self._lock:
            return self._said.get(base)

    def forget(self, base: str) -> None:
        """Ask the root of the API at *base* again the next time: what it demanded could not be met."""
        with self._lock:
            self._said.pop(base, None)

    def forget_failures(self) -> None:
        """Ask every root again that failed, or did not answer, the last time."""
        with self._lock:
            for base in [base for base, root in self._said.items() if root.failure is not None or root.is_silent]:
                self._said.pop(base, None)

    def said(self, endpoint: Endpoint, base: str) -> Root:
        """Return what the root of the API at *base* said in the last minutes; asks it if it was not asked.

        A failure of a host that can be reached is a Root with a failure: the rest of the API may work. Raises
        WouldBlock, Interrupted, RegistryTimeout where the caller's own deadline passes, and _HOST_FAILURES.
        """
        known = self.known(base)
        return known or self._flights.run(("root", base), partial(self._ask_or_fail, endpoint, base))

    def ask(self, endpoint: Endpoint, base: str) -> Root:
        """Ask the root of the API at *base* now, once, and return what it says. Raises as RetryingSender.probe does."""
        request = Request(
            "GET",
            _root_of(base),
            headers=endpoint.headers,
            tls=endpoint.tls,
            is_dispensable=True,  # it must not hold up the request that waits for it
            why="api",
        )
        with self._sender.probe(request) as answer:
            challenges = tuple(answer.headers.all("WWW-Authenticate")) if answer.status == 401 else ()
            # A redirect is an answer too (registry.k8s.io); its target's demand is not this registry's.
            failure = None if answer.status in (200, 401, *REDIRECTS) else refusal(answer, what=request.url)
            answer.discard()
        root = Root(challenges, failure)
        with self._lock:
            self._said[base] = root
        return root

    def _ask_or_fail(self, endpoint: Endpoint, base: str) -> Root:
        """Return what the root says, or a Root with the failure."""
        known = self.known(base)
        if known is not None:  # a flight landed between the look at the roots and the start of this one
            return known
        try:
            return self.ask(endpoint, base)
        except (Interrupted, WouldBlock, *_HOST_FAILURES):
            raise
        except RegfsError as error:
            deadline.current().remaining_s(0.0)  # where the flight's own deadline was the reason, that is the error
            root = Root(failure=error, has_answered=False)
            log.info("%s/ does not say what it demands: %s", base, error)
        with self._lock:
            self._said[base] = root
        return root

    def _settled(self, endpoint: Endpoint) -> str:
        secure = f"https://{endpoint.base.partition('://')[2]}"
        plain = f"http://{endpoint.base.partition('://')[2]}"
        try:
            self.ask(endpoint, secure)
        except NotTls:
            return plain
        except ConnectFailed:
            # Nothing listens there: then http on the same port fails too, but on the default port it may not.
            self.ask(endpoint, plain)
            return plain
        return secure


def _root_of(base: str) -> str:
    """Return the URL of the API's root: a mirror's *base* may have a path of its own below `/v2`."""
    path = urlsplit(base).path
    below = path.removeprefix("/v2/")
    return f"{base}/" if below == path else f"{base.removesuffix(below)}"


def _expiry(_base: str, root: Root, now: float) -> float:
    if not root.is_silent:
        return now + _ANSWER_KEPT_S
    return now + (_SLOWNESS_KEPT_S if isinstance(root.failure, RegistryTimeout) else _FAILURE_KEPT_S)
