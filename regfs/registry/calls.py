"""Calls to a registry's API: the endpoint's address and headers, authentication, and mirrors in their order.

Used by client.py and the modules of its verbs (documents, blobs, listing, referrers). Thread rule: shared by all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote, urlsplit

from cachetools import LRUCache

from regfs.errors import (
    AccessDenied,
    BadContent,
    NotFound,
    Offline,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.model.names import RepositoryName
from regfs.registry.auth import Authenticator
from regfs.registry.exchange import Exchange
from regfs.registry.hosts import Endpoint, Hosts
from regfs.registry.message import Answer, Origin, Request
from regfs.registry.refusals import refusal
from regfs.registry.sockets import ConnectFailed, NotTls

log = logging.getLogger(__name__)

T = TypeVar("T")
# A mirror that does not answer must leave time to ask the next.
_MIRROR_ANSWERS_WITHIN_S = 10.0
MIRROR_FAILURES = (NotFound, AccessDenied, RateLimited, RegistryTimeout, RegistryUnavailable, BadContent)


class Calls:
    """Sends what the client asks to the right address with the right credentials."""

    def __init__(self, hosts: Hosts, authenticator: Authenticator, exchange: Exchange, *, offline: bool) -> None:
        self._hosts = hosts
        self._authenticator = authenticator
        self._exchange = exchange
        self._offline = offline
        self._lock = threading.Lock()
        self._bases: LRUCache[str, str] = LRUCache(1024)

    def endpoints(self, registry: str, capability: str) -> list[Endpoint]:
        """Return where *registry* may be asked for what *capability* names, in order; never nothing."""
        endpoints = self._hosts.endpoints(registry)
        able = [endpoint for endpoint in endpoints if capability in endpoint.capabilities]
        if not able:
            raise RegistryUnavailable(f"{registry}: none of its hosts may be asked to {capability}, by its hosts.toml")
        return able

    def first_of(self, registry: str, capability: str, ask: Callable[[Endpoint], T]) -> T:
        """Return what *ask* returns for the first endpoint that answers; the last one's error is the verdict.

        A mirror's failure, whatever it is, only means that the next one is asked. A registry without upstream
        (hosts.toml can say so) is as unavailable as its mirrors.
        """
        failures: list[str] = []
        endpoints = self.endpoints(registry, capability)
        for number, endpoint in enumerate(endpoints, 1):
            try:
                return ask(endpoint)
            except MIRROR_FAILURES as error:
                if number == len(endpoints):
                    if (final := verdict(error, endpoint, failures)) is error:
                        raise
                    raise final from error
                log.info("mirror %s of %s: %s", endpoint.host, registry, error)
                failures.append(f"mirror {endpoint.host}: {error}")
        raise AssertionError("endpoints() returned nothing")

    def call(
        self,
        endpoint: Endpoint,
        path: str,
        *,
        what: str,
        repository: RepositoryName | None,
        scopes: tuple[str, ...],
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        bulk: bool = False,
        body_limit: int | None = None,
    ) -> Answer:
        """Return the answer of *endpoint* to *method* *path*, with its query; blocks on the network.

        The path is below `/v2/`; one that begins with a slash, out of an answer, is the host's.

        Any status comes back that is no redirect, not transient, and no 401 that authentication settles. *bulk* and
        *body_limit* are those of Request. Raises
        Offline, AccessDenied, and what Exchange.ask raises.
        """
        if self._offline:
            raise Offline(f"{what}: {endpoint.host} would have to be asked, and regfs runs with --offline")
        base = self.base(endpoint)
        where = base.rpartition(urlsplit(base).path)[0] if path.startswith("/") else f"{base}/"
        url = with_namespace(f"{where}{path}", endpoint)
        login = self._authenticator.login(endpoint, base=base, repository=repository, scopes=scopes)
        while True:
            sent = {**endpoint.headers, **(headers or {})}
            authorization = login.header()
            if authorization is not None:
                sent["Authorization"] = authorization
            request = replace(self._request(endpoint, method, url, headers=sent), bulk=bulk, body_limit=body_limit)
            answer = self._exchange.ask(request, what=what)
            if answer.status not in (401, 403) or is_foreign(answer, url):
                return answer
            if not login.refused(answer, ping=lambda: self._ping(endpoint, base)):
                return answer
            answer.discard()

    def elsewhere(self, url: str, *, headers: Mapping[str, str], bulk: bool, what: str) -> Answer:
        """Return the answer of *url*, where a redirect led before: asked as a stranger, without credentials."""
        return self._exchange.ask(Request("GET", url, headers=headers, bulk=bulk), what=what)

    def base(self, endpoint: Endpoint) -> str:
        """Return the URL of *endpoint*'s API, its scheme settled before any credential is sent over it.

        Where plain http is allowed as a fall-back, https is tried first; what is decided once stays.
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

    def _settled(self, endpoint: Endpoint) -> str:
        secure = f"https://{endpoint.base.partition('://')[2]}"
        plain = f"http://{endpoint.base.partition('://')[2]}"
        try:
            self._knock(endpoint, secure)
        except NotTls:
            return plain
        except ConnectFailed:
            # Nothing listens there: then http on the same port fails too, but on the default port it may not.
            self._knock(endpoint, plain)
            return plain
        return secure

    def _knock(self, endpoint: Endpoint, base: str) -> None:
        """Ask *base* what it demands, as anybody may, and remember it."""
        with self._exchange.probe(Request("GET", f"{base}/", tls=endpoint.tls)) as answer:
            if answer.status == 401:
                self._authenticator.learn(base, answer.headers.all("WWW-Authenticate"))
            answer.discard()

    def _ping(self, endpoint: Endpoint, base: str) -> list[str]:
        """Return the challenges of the API's root, for a 401 that has none."""
        request = self._request(endpoint, "GET", f"{base}/", headers=endpoint.headers)
        with self._exchange.once(request, what=f"{base}/") as answer:
            answer.discard()
            return answer.headers.all("WWW-Authenticate") if answer.status == 401 else []

    def _request(self, endpoint: Endpoint, method: str, url: str, *, headers: Mapping[str, str]) -> Request:
        within_s = None if endpoint.upstream else _MIRROR_ANSWERS_WITHIN_S
        return Request(method, url, headers=headers, tls=endpoint.tls, answer_within_s=within_s)


def is_foreign(answer: Answer, url: str) -> bool:
    """Tell whether *answer* came from another origin than *url*: a storage or CDN, whose refusals are not ours."""
    return answer.request.origin != Origin.of(url)


def with_namespace(url: str, endpoint: Endpoint) -> str:
    """Return *url* with the query `ns=`, which tells a mirror whose repository is meant."""
    if endpoint.namespace is None or "ns=" in urlsplit(url).query:
        return url
    return f"{url}{'&' if '?' in url else '?'}ns={quote(endpoint.namespace, safe=':')}"


def verdict(error: RegfsError, endpoint: Endpoint, failures: list[str]) -> RegfsError:
    """Return the error to raise when all endpoints failed: upstream's own, with what the mirrors said.

    Where the last endpoint is a mirror, its "not found" proves nothing.
    """
    text = "; ".join([str(error), *failures])
    if not endpoint.upstream and isinstance(error, NotFound):
        return RegistryUnavailable(f"{text}; no host with the last word could be asked")
    return type(error)(text) if failures else error


def pull_scope(repository: RepositoryName) -> tuple[str, ...]:
    """Return the scope of everything that regfs does in *repository*: always named, never more than reading."""
    return (f"repository:{repository.path}:pull",)


def expected(answer: Answer, *statuses: int, what: str) -> Answer:
    """Return *answer* where its status is one of *statuses*; otherwise raise what it means."""
    if answer.status in statuses:
        return answer
    error = refusal(answer, what=what)
    answer.close()
    raise error
