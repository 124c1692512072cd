"""Calls to a registry's API: which endpoint is asked, at which address, with which headers and authorization.

Used by manifests.py, blobs.py, listing.py and referrers.py. Thread rule: shared by all threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from regfs.errors import (
    AccessDenied,
    BadConfiguration,
    BadContent,
    NotFound,
    Offline,
    RateLimited,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    TooLarge,
    Unsupported,
)
from regfs.model.names import RepositoryName
from regfs.registry.auth.api_roots import ApiRoots
from regfs.registry.auth.authorization import REFUSALS, RequestAuthorization
from regfs.registry.auth.known_demands import KnownDemands
from regfs.registry.hosts.endpoints import Endpoint, Hosts
from regfs.registry.http.error_answers import refusal
from regfs.registry.http.messages import Answer, Origin, Request
from regfs.registry.http.retrying import RetryingSender

log = logging.getLogger(__name__)

T = TypeVar("T")
_WORDS = {
    "manifests": "manifest", "blobs": "blob", "tags": "tags", "_catalog": "catalog", "referrers": "referrers",
}  # fmt: skip
MIRROR_FAILURES = (
    NotFound,
    AccessDenied,
    RateLimited,
    RegistryTimeout,
    RegistryUnavailable,
    BadContent,
    BadConfiguration,
    TooLarge,
    Unsupported,
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a registry's API, before one of its endpoints is chosen.

    *path* is below `/v2/`, with its query; a path that begins with a slash (from an answer) is below the host. *what*
    names the object in messages. *bulk*, *body_limit* and *stays* are those of Request.
    """

    path: str
    what: str
    scopes: tuple[str, ...]
    repository: RepositoryName | None
    method: str = field(default="GET", kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    body: bytes | None = field(default=None, kw_only=True, repr=False)
    bulk: bool = field(default=False, kw_only=True)
    body_limit: int | None = field(default=None, kw_only=True)
    stays: bool = field(default=False, kw_only=True)

    @property
    def why(self) -> str:
        """A word for what is asked: `resolve` for a manifest by tag, `manifest` by digest, `blob`, `tags` …"""
        parts = self.path.partition("?")[0].split("/")
        if self.method not in ("GET", "HEAD"):
            return "push"
        kind = next((part for part in reversed(parts[-3:]) if part in _WORDS), "")
        return "resolve" if kind == "manifests" and ":" not in parts[-1] else _WORDS.get(kind, "")

    @classmethod
    def pull(cls, repository: RepositoryName, path: str, *, what: str) -> Call:
        """Return the call for *path* in *repository*, with the scope to read it."""
        return cls(f"{repository.path}/{path}", what, (f"repository:{repository.path}:pull",), repository)

    @classmethod
    def push(
        cls,
        repository: RepositoryName,
        path: str,
        method: str,
        *,
        what: str,
        body: bytes | None = None,
        content_type: str = "",
    ) -> Call:
        """Return a call for *path*, as Call has it or in *repository*, with the scope to write there."""
        return cls(
            path if path.startswith("/") else f"{repository.path}/{path}",
            what,
            (f"repository:{repository.path}:pull,push",),
            repository,
            method=method,
            headers={"Content-Type": content_type} if content_type else {},
            body=body,
            bulk=body is not None,
        )


class EndpointCalls:
    """Sends calls to the endpoints of registries, with the right credentials."""

    def __init__(
        self, hosts: Hosts, roots: ApiRoots, demands: KnownDemands, sender: RetryingSender, *, offline: bool
    ) -> None:
        self._hosts = hosts
        self._roots = roots
        self._demands = demands
        self._sender = sender
        self._offline = offline

    def endpoints(self, registry: str, capability: str) -> list[Endpoint]:
        """Return the endpoints of *registry* that have *capability*, in order; at least one."""
        endpoints = self._hosts.endpoints(registry)
        able = [endpoint for endpoint in endpoints if capability in endpoint.capabilities]
        if not able:
            raise RegistryUnavailable(f"{registry}: none of its hosts may be asked to {capability}, by its hosts.toml")
        return able

    def first_of(self, registry: str, capability: str, ask: Callable[[Endpoint], T]) -> T:
        """Return what *ask* returns for the first endpoint that answers; if none does, raise the last one's error.

        Any failure of a mirror only means that the next endpoint is asked. A registry without upstream (hosts.toml can
        say so) is as unavailable as its mirrors.
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

    def send(self, endpoint: Endpoint, call: Call) -> Answer:
        """Return the answer of *endpoint* to *call*; blocks on the network.

        An answer may have any status but a redirect, a transient error, and a 401 that authentication settles. Raises
        Offline, AccessDenied, and what RetryingSender.send raises.
        """
        if self._offline:
            raise Offline(f"{call.what}: {endpoint.host} would have to be asked, and regfs runs with --offline")
        base = self._roots.base(endpoint)
        url = _url(endpoint, base, call.path)
        authorization = RequestAuthorization(
            self._demands, endpoint, base=base, repository=call.repository, scopes=call.scopes
        )
        while True:
            headers = {**endpoint.headers, **call.headers}
            header = authorization.header()
            if header is not None:
                headers["Authorization"] = header
            answer = self._sender.send(_request(endpoint, call, url, headers), what=call.what)
            if crossed_origin(answer, url):
                return answer
            if answer.status in (404, 410) and authorization.doubt:
                answer.close()
                raise RegistryUnavailable(f"{call.what}: {endpoint.host} answers {answer.status}{authorization.doubt}")
            if answer.status not in REFUSALS:
                return answer
            if not authorization.refused(answer):
                answer.remedy = authorization.remedy
                return answer
            answer.discard()

    def base(self, endpoint: Endpoint) -> str:
        """Return the URL of *endpoint*'s API. Blocks on the network if its scheme is not known. See ApiRoots.base."""
        return self._roots.base(endpoint)

    def elsewhere(self, url: str, call: Call) -> Answer:
        """Return the answer of *url*, where a redirect of *call* led before, asked without credentials."""
        request = Request("GET", url, headers=call.headers, bulk=call.bulk, why=call.why)
        return self._sender.send(request, what=call.what)


def _request(endpoint: Endpoint, call: Call, url: str, headers: Mapping[str, str]) -> Request:
    return Request(
        call.method,
        url,
        headers=headers,
        body=call.body,
        tls=endpoint.tls,
        bulk=call.bulk,
        body_limit=call.body_limit,
        stays=call.stays,
        why=call.why,
        is_dispensable=not endpoint.upstream,
    )


def _url(endpoint: Endpoint, base: str, path: str) -> str:
    """Return the URL of *path*, with the query `ns=` that tells a mirror whose repository is meant."""
    root = base.removesuffix(urlsplit(base).path) if path.startswith("/") else f"{base}/"
    url = f"{root}{path}"
    query = urlsplit(url).query
    if endpoint.namespace is None or any(name == "ns" for name, _value in parse_qsl(query)):
        return url
    return f"{url}{'&' if query else '?'}ns={quote(endpoint.namespace, safe=':')}"


def crossed_origin(answer: Answer, url: str) -> bool:
    """Tell whether *answer* came from another origin than *url*: a storage or CDN, which knows no login."""
    return answer.request.origin != Origin.of(url)


def verdict(error: RegfsError, endpoint: Endpoint, failures: list[str]) -> RegfsError:
    """Return the error to raise when all endpoints failed: upstream's own, with what the mirrors said.

    If the last endpoint is a mirror, its "not found" proves nothing.
    """
    text = "; ".join([str(error), *failures])
    if not endpoint.upstream and isinstance(error, NotFound):
        return RegistryUnavailable(f"{text}; no host with the last word could be asked")
    return type(error)(text) if failures else error


def expected(answer: Answer, *statuses: int, what: str) -> Answer:
    """Return *answer* where its status is one of *statuses*; otherwise raise what it means."""
    if answer.status in statuses:
        return answer
    error = refusal(answer, what=what)
    answer.close()
    raise error
