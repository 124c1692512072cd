"""Tokens: fetched from the server that a challenge names, kept until shortly before they expire.

The registry chooses the token server, and a credential goes there: hence the rules in `_realm`. Sources: distribution,
docs/content/spec/auth/token.md (GET), oauth.md (POST). Used by authorization.py. Thread rule: TokenServers is shared by
all threads; a token is fetched once, however many threads need it (process/waiting/single_flight.py).
"""

from __future__ import annotations

import base64
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cachetools import LRUCache, TLRUCache, TTLCache

from regfs.errors import AccessDenied, ProtocolViolation, TooLarge
from regfs.process.waiting.single_flight import Flights
from regfs.registry.auth.challenge import Challenge
from regfs.registry.credentials.lookup import Credential
from regfs.registry.http.addresses import is_internal
from regfs.registry.http.error_answers import BODY_LIMIT, refusal
from regfs.registry.http.messages import Answer, Origin, Request
from regfs.registry.http.redirects import resolved
from regfs.registry.http.retrying import RetryingSender
from regfs.registry.http.trust import Tls
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

CLIENT_ID = "regfs"
_LIFETIME_S = 60.0  # the least lifetime of a token, and the default (token.md)
_LIFETIME_LIMIT_S = 24 * 3600.0
_KEPT = 4096
# The statuses of token servers that know no OAuth2 POST: GCR 404, JFrog 401, ACR 400, others 405 (containerd).
_NO_OAUTH = frozenset({400, 401, 404, 405, 501})


class TokenRefused(AccessDenied):
    """The token server was asked and gave no token to the credential that it was shown."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Everything that a token depends on; a token is used for no other request."""

    base: str
    realm: str
    service: str
    scopes: tuple[str, ...]
    credential: Credential | None = field(repr=False)
    tls: Tls = field(compare=False)

    @classmethod
    def of(
        cls, challenge: Challenge, *, base: str, tls: Tls, scopes: tuple[str, ...], credential: Credential | None
    ) -> TokenRequest:
        """Return the request that answers *challenge* of the registry at *base*.

        Raises AccessDenied if the credential would go to a server that must not have it.
        """
        realm = _realm(challenge.get("realm"), base)
        there, here = Origin.of(realm), Origin.of(base)
        # Another host gets the registry's authorities to be checked with, but no client certificate and no leniency.
        trust = tls if there.host == here.host else Tls(ca_files=tls.ca_files)
        return cls(base, realm, challenge.get("service"), scopes, credential, trust)

    @property
    def key(self) -> TokenRequest:
        """This request with its scopes sorted: the order of scopes makes no difference."""
        return TokenRequest(self.base, self.realm, self.service, tuple(sorted(self.scopes)), self.credential, self.tls)

    @property
    def server(self) -> str:
        """The token server's host, for messages."""
        return str(Origin.of(self.realm))


@dataclass(frozen=True, slots=True)
class Token:
    """A token and for how many seconds from now it is used."""

    value: str = field(repr=False)
    use_s: float


class TokenServers:
    """Fetches tokens, each once, and keeps them."""

    def __init__(
        self, sender: RetryingSender, flights: Flights, stats: Stats, *, clock: Callable[[], float], denial_s: float
    ) -> None:
        self._sender = sender
        self._flights = flights
        self._stats = stats
        self._lock = threading.Lock()
        self._tokens: TLRUCache[TokenRequest, Token] = TLRUCache(
            _KEPT, lambda _key, token, now: float(now + token.use_s), timer=clock
        )
        # A denial is kept for seconds, so that a tree walk does not become a storm on the token server.
        self._denials: TTLCache[TokenRequest, str] = TTLCache(_KEPT, denial_s, timer=clock)
        self._announced: LRUCache[tuple[str, str], bool] = LRUCache(_KEPT)
        self._refresh_tokens: LRUCache[tuple[str, Credential], str] = LRUCache(_KEPT)

    def token(self, request: TokenRequest) -> tuple[str, bool]:
        """Return a token for *request*, and whether it was fetched just now; may block on the network.

        Raises AccessDenied if the token server refuses, and what RetryingSender.send raises.
        """
        token = self._kept(request)
        if token is not None:
            return token.value, False
        key = "token of", request.server, (request.key,)
        return self._flights.run(key, lambda: self._fetch_and_keep(request)).value, True

    def has_denied(self, request: TokenRequest) -> bool:
        """Tell whether a token for *request* was denied a moment ago: then token() sends no request."""
        with self._lock:
            return request.key in self._denials

    def forget_failures(self) -> None:
        """Forget the denials, so that every token may be requested again."""
        with self._lock:
            self._denials.clear()

    def forget(self, request: TokenRequest, authorization: str) -> None:
        """Drop the token of *request* if it is still the one that was sent as *authorization*."""
        with self._lock:
            token = self._tokens.get(request.key)
            if token is not None and authorization == f"Bearer {token.value}":
                del self._tokens[request.key]

    def _kept(self, request: TokenRequest) -> Token | None:
        """Return the token that is kept for *request*, None for none. Raises TokenRefused if it was denied just now."""
        with self._lock:
            token = self._tokens.get(request.key)
            denial = self._denials.get(request.key)
        if token is None and denial is not None:
            raise TokenRefused(denial)
        return token

    def _fetch_and_keep(self, request: TokenRequest) -> Token:
        token = self._kept(request)
        if token is not None:  # a flight landed between the look at the tokens and the start of this one
            return token
        try:
            token = self._fetch(request)
        except AccessDenied as denial:
            with self._lock:
                self._denials[request.key] = str(denial)
            raise
        with self._lock:
            self._tokens[request.key] = token
        return token

    def _fetch(self, request: TokenRequest) -> Token:
        """Ask the token server: by OAuth2 for an identity token; by GET otherwise, or if it knows no OAuth2."""
        credential = request.credential
        if credential is not None and credential.identity_token is not None:
            answer = self._post(request, credential)
            if answer.status != 200 and self._forget_refreshed(request, credential):
                answer.discard()
                answer = self._post(request, credential)
            if answer.status == 200:
                return self._granted(request, answer)
            if answer.status not in _NO_OAUTH:
                raise self._denied(request, answer)
            answer.discard()
        answer = self._get(request)
        if answer.status != 200:
            raise self._denied(request, answer)
        return self._granted(request, answer)

    def _get(self, request: TokenRequest) -> Answer:
        query = [("service", request.service)] if request.service else []
        query += [("scope", scope) for scope in request.scopes]
        query.append(("client_id", CLIENT_ID))
        headers = {}
        if request.credential is not None:
            headers["Authorization"] = basic_authorization(request.credential)
            if request.credential.username:
                query.append(("account", request.credential.username))
        return self._ask(Request("GET", _with_query(request.realm, query), headers=headers, tls=request.tls), request)

    def _post(self, request: TokenRequest, credential: Credential) -> Answer:
        with self._lock:
            newer = self._refresh_tokens.get((request.realm, credential))
        form = {
            "grant_type": "refresh_token",
            "refresh_token": newer or credential.identity_token or "",
            "service": request.service,
            "client_id": CLIENT_ID,
            "scope": " ".join(request.scopes),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode("ascii")
        return self._ask(Request("POST", request.realm, headers=headers, body=body, tls=request.tls), request)

    def _forget_refreshed(self, request: TokenRequest, credential: Credential) -> bool:
        """Drop the refresh token that replaced the user's own, and tell whether there was one: it may have expired."""
        with self._lock:
            return self._refresh_tokens.pop((request.realm, credential), None) is not None

    def _ask(self, message: Request, request: TokenRequest) -> Answer:
        self._stats.count("registry.token_requests")
        self._announce(request)
        try:
            return self._sender.send(
                replace(message, body_limit=BODY_LIMIT, why="token"), what=f"a token of {request.server}"
            )
        except TooLarge as error:
            raise AccessDenied(f"token server {request.server} answers without a token: {error}") from error

    def _announce(self, request: TokenRequest) -> None:
        """Log which server gets a registry's credentials, once: the registry chose it, not the user."""
        registry = str(Origin.of(request.base))
        with self._lock:
            is_new = (registry, request.server) not in self._announced
            self._announced[registry, request.server] = True
        if is_new:
            log.info("%s takes its tokens from %s", registry, request.server)

    def _denied(self, request: TokenRequest, answer: Answer) -> TokenRefused:
        refused = "anonymous access"
        if request.credential is not None:
            refused = f"the credentials from {request.credential.source}; {request.credential.remedy}"
        return TokenRefused(f"{refusal(answer, what=f'token server {request.server}')}; it refuses {refused}")

    def _granted(self, request: TokenRequest, answer: Answer) -> Token:
        """Return the token in the server's *answer*. Raises AccessDenied where there is none."""
        try:
            document = json.loads(answer.read(BODY_LIMIT, what="its answer"))
        except (ValueError, RecursionError):
            document = None
        fields = document if isinstance(document, dict) else {}
        value = fields.get("access_token") or fields.get("token")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
            raise AccessDenied(f"token server {request.server} answers without a token")
        refreshed = fields.get("refresh_token")
        if request.credential is not None and isinstance(refreshed, str) and refreshed:
            # Kept in memory, for this server only; the user's files are never written.
            with self._lock:
                self._refresh_tokens[request.realm, request.credential] = refreshed
        return Token(value, _use_s(fields))


def basic_authorization(credential: Credential) -> str:
    """Return the Basic authorization of *credential*, in UTF-8 (requests would use Latin-1, or fail)."""
    secret = credential.password or credential.identity_token or ""
    pair = f"{credential.username}:{secret}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _realm(realm: str, base: str) -> str:
    """Return the URL of the token server that a registry at *base* names. Raises AccessDenied.

    It must be https (http only if the registry itself is asked by http). It must not be a private or link-local address
    unless the registry has one: otherwise a registry could have a password sent to a machine that only this one can
    reach (go-containerregistry, bearer.go).
    """
    here = Origin.of(base)
    try:
        url = resolved(f"{base}/", realm)
    except ProtocolViolation:
        raise AccessDenied(f"{here}: its challenge names no usable token server") from None
    there = Origin.of(url)
    if there.scheme == "http" and here.scheme == "https":
        raise AccessDenied(f"{here}: its token server {there} is not asked over plain http")
    if is_internal(there.host) and there.host != here.host and not is_internal(here.host):
        raise AccessDenied(f"{here}: its token server {there} has a private address")
    return url


def _with_query(url: str, query: list[tuple[str, str]]) -> str:
    """Return *url* with *query* after the query that it has already."""
    parts = urlsplit(url)
    own = parse_qsl(parts.query, keep_blank_values=True)
    return urlunsplit(parts._replace(query=urlencode([*own, *query]), fragment=""))


def _use_s(fields: dict[str, Any]) -> float:
    """Return for how many seconds from now a token is used: a little less than its lifetime.

    Clocks differ: `issued_at` counts only if it lies between now and one lifetime ago.
    """
    lifetime_s = _number(fields.get("expires_in"))
    lifetime_s = min(max(lifetime_s, _LIFETIME_S), _LIFETIME_LIMIT_S)
    age_s = time.time() - _timestamp(fields.get("issued_at"))
    if 0 < age_s < lifetime_s:
        lifetime_s = max(lifetime_s - age_s, _LIFETIME_S)
    return lifetime_s - min(30.0, lifetime_s / 10)


def _number(value: object) -> float:
    """Return *value* as a number, 0 if it is not one."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return float(value[:12])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        return _LIFETIME_LIMIT_S
    return 0.0 if math.isnan(number) else number


def _timestamp(value: object) -> float:
    """Return the seconds since 1970 of an RFC 3339 time, infinity if *value* is not one."""
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else math.inf
    except (ValueError, OverflowError):
        return math.inf
