"""Authentication: what a registry wants to see before it answers, and where that comes from.

A request goes out without credentials first; the registry's challenge says what it wants and from which token server.
What was learnt is kept, so that the next request brings its token at once. One Login goes through one request:

    login = authenticator.login(endpoint, …)
    send with login.header(); on 401 or 403: if login.refused(answer, …): send again, else that is the verdict

Rules: a credential goes to its registry and to the token server that this registry names, never over plain http unless
the registry itself is plain; a token is kept per registry, token server, service, scopes and credential; a refused
token is dropped and fetched anew once; however many threads need one token, one of them fetches it.
Sources: distribution, docs/content/spec/auth/{token,oauth,scope}.md.

Used by calls.py. Thread rule: an Authenticator is shared by all threads, a Login belongs to one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cachetools import LRUCache, TTLCache

from regfs.errors import AccessDenied, BadContent, ProtocolViolation, RegistryTimeout, RegistryUnavailable
from regfs.model.names import RepositoryName
from regfs.registry.challenge import Challenge, parse_challenges
from regfs.registry.credentials import Credential, Credentials
from regfs.registry.hosts import Endpoint
from regfs.registry.message import Answer
from regfs.registry.tokens import TokenRequest, TokenServers, basic_authorization

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_RENEWAL_S = 30.0


class Demand(NamedTuple):
    """What a registry asks for: a token, a password, or either."""

    bearer: Challenge | None
    basic: Challenge | None

    @property
    def server(self) -> tuple[str, str]:
        """The token server and what it knows the registry as; empty for Basic."""
        return ("", "") if self.bearer is None else (self.bearer.get("realm"), self.bearer.get("service"))

    @classmethod
    def of(cls, challenges: list[Challenge]) -> Demand | None:
        """Return what *challenges* ask for, None where that is nothing that regfs knows."""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        bearer, basic = by_scheme.get("bearer"), by_scheme.get("basic")
        return None if bearer is None and basic is None else cls(bearer, basic)


class Authenticator:
    """Knows what each registry demanded, and answers it."""

    def __init__(
        self, credentials: Credentials, token_servers: TokenServers, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.credentials = credentials
        self.token_servers = token_servers
        self._lock = threading.Lock()
        # By base URL and scopes: Artifactory has a token server for each of its repositories. Without scopes: the last
        # one of the registry, for a first attempt.
        self._demands: LRUCache[tuple[str, tuple[str, ...]], Demand] = LRUCache(_REMEMBERED)
        self._scopes: LRUCache[tuple[str, tuple[str, ...]], tuple[str, ...]] = LRUCache(_REMEMBERED)
        self._renewals: TTLCache[str, bool] = TTLCache(_REMEMBERED, _RENEWAL_S, timer=clock)

    def login(
        self, endpoint: Endpoint, *, base: str, repository: RepositoryName | None, scopes: tuple[str, ...]
    ) -> Login:
        """Return the dealings of one request with authentication. *base* is the URL of the API that is asked."""
        return Login(self, endpoint, base=base, repository=repository, scopes=scopes)

    def demand(self, base: str, asked: tuple[str, ...]) -> Demand | None:
        """Return what the registry at *base* demanded last for *asked*, or for anything."""
        with self._lock:
            return self._demands.get((base, asked)) or self._demands.get((base, ()))

    def learn(self, base: str, asked: tuple[str, ...], challenges: list[str]) -> Demand | None:
        """Remember what WWW-Authenticate headers of the registry at *base* demand for *asked*; return it."""
        demand = Demand.of(parse_challenges(challenges))
        if demand is not None:
            with self._lock:
                self._demands[base, asked] = self._demands[base, ()] = demand
        return demand

    def unlearn(self, base: str, asked: tuple[str, ...], demand: Demand) -> None:
        """Forget *demand*, which cannot be met: the registry at *base* may have mended it, and is to say it anew."""
        with self._lock:
            for key in ((base, asked), (base, ())):
                if self._demands.get(key) == demand:
                    del self._demands[key]

    def renew(self, host: str) -> None:
        """Let the helpers be asked again for *host*, whose credential was refused: not too often."""
        with self._lock:
            is_due = host not in self._renewals
            if is_due:
                self._renewals[host] = True
        if is_due:
            self.credentials.forget(host)

    def scopes(self, base: str, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Return the scopes that are known to be needed where *asked* should do."""
        with self._lock:
            return self._scopes.get((base, asked), asked)

    def widen(self, base: str, asked: tuple[str, ...], scopes: tuple[str, ...]) -> None:
        """Remember that *asked* needs *scopes*."""
        with self._lock:
            self._scopes[base, asked] = scopes


class Login:
    """One request's authorization, from the first attempt to the verdict."""

    def __init__(
        self,
        authenticator: Authenticator,
        endpoint: Endpoint,
        *,
        base: str,
        repository: RepositoryName | None,
        scopes: tuple[str, ...],
    ) -> None:
        self._authenticator = authenticator
        self._endpoint = endpoint
        self._base = base
        self._repository = repository
        self._asked = scopes
        self._scopes = authenticator.scopes(base, scopes)
        self._credential: Credential | None = None
        self._token: TokenRequest | None = None
        self._sent: str | None = None
        self._demand: Demand | None = None
        self._fresh = False
        self._moved = False
        self._widened = False
        self._renewed = False

    def header(self) -> str | None:
        """Return the Authorization to send, None for none; may block on a credential helper and on a token server.

        Raises AccessDenied, and what Exchange.ask raises.
        """
        self._demand = self._authenticator.demand(self._base, self._asked)
        self._token = None
        self._sent = None if self._demand is None else self._authorization(self._demand)
        return self._sent

    def refused(self, answer: Answer, *, ping: Callable[[], list[str]]) -> bool:
        """Tell whether the request should be sent again with a new header(), now that *answer* is 401 or 403.

        *ping* returns the challenges of the registry's base URL, for a registry whose 401 has none (gcr.io).
        """
        if answer.status == 403:
            return self._sent is not None and self._credential_changed()
        headers = answer.headers.all("WWW-Authenticate")
        before, demand = self._demand, self._authenticator.learn(self._base, self._asked, headers)
        if demand is None and self._sent is None:
            demand = self._authenticator.learn(self._base, self._asked, ping())
        challenge = demand.bearer if demand is not None else None
        if self._sent is None:
            return self._begin(demand)
        if challenge is not None and self._widen(challenge):
            return True
        if demand is not None and before is not None and demand.server != before.server and not self._moved:
            self._moved = True
            return True
        if self._token is not None and not self._fresh:
            self._authenticator.token_servers.forget(self._token, self._sent)
            self._fresh = True
            return True
        return self._credential_changed()

    @property
    def remedy(self) -> str:
        """What to tell the user after the verdict: a registry says 401 for what is missing and for what is secret."""
        host = self._endpoint.namespace or self._endpoint.host
        if self._credential is None:
            return f"; it does not exist, or needs a login (docker login {host})"
        return f"; the credentials from {self._credential.source} do not open it: renew the login, or log out of {host}"

    def _begin(self, demand: Demand | None) -> bool:
        """Tell whether the demand that a request without authorization met can be answered."""
        if demand is None or self._fresh:
            return False
        self._fresh = True
        self._add_scopes(demand.bearer)
        return demand.bearer is not None or self._find_credential() is not None

    def _authorization(self, demand: Demand) -> str | None:
        self._credential = self._find_credential()
        if self._credential is not None and self._credential.registry_token is not None:
            return f"Bearer {self._credential.registry_token}"
        basic = None if self._credential is None or demand.basic is None else basic_authorization(self._credential)
        if demand.bearer is None:
            return basic
        try:
            return f"Bearer {self._bearer(demand, demand.bearer)}"
        except (AccessDenied, ProtocolViolation):
            if basic is None:
                raise
            return basic

    def _bearer(self, demand: Demand, challenge: Challenge) -> str:
        token_servers, is_known = self._authenticator.token_servers, False
        try:
            token = TokenRequest.of(
                challenge, base=self._base, tls=self._endpoint.tls, scopes=self._scopes, credential=self._credential
            )
            is_known = token_servers.has_denied(token)
            value, is_new = token_servers.token(token)
        except (AccessDenied, BadContent, RegistryUnavailable, RegistryTimeout):
            if not is_known:  # a denial that is remembered costs the registry no request
                self._authenticator.unlearn(self._base, self._asked, demand)
            raise
        self._token = token
        self._fresh = self._fresh or is_new
        return value

    def _find_credential(self) -> Credential | None:
        # A mirror is shown the mirror's credentials, never those of the registry that it mirrors.
        if self._endpoint.upstream and self._repository is not None:
            return self._authenticator.credentials.for_repository(self._repository)
        return self._authenticator.credentials.for_host(self._endpoint.host)

    def _credential_changed(self) -> bool:
        """Tell whether the credential is another one by now: a login was renewed, a helper has a new password."""
        if self._renewed or self._credential is None:
            return False
        self._renewed = True
        self._authenticator.renew(self._endpoint.host)
        return self._find_credential() != self._credential

    def _add_scopes(self, challenge: Challenge | None) -> None:
        """Ask for what the registry names beside what we know to need, but never for the right to write."""
        if challenge is None:
            return
        named = readable_scopes(challenge.get("scope"))
        missing = tuple(scope for scope in named if scope not in self._scopes)
        if missing:
            self._scopes += missing
            self._authenticator.widen(self._base, self._asked, self._scopes)

    def _widen(self, challenge: Challenge) -> bool:
        """Tell whether there are scopes to add after `insufficient_scope`: once, or two scopes would alternate."""
        if challenge.get("error") != "insufficient_scope" or self._widened:
            return False
        named = readable_scopes(challenge.get("scope"))
        if not set(named) - set(self._scopes):
            return False
        self._widened = True
        # The new ones first: some registries look only at the first.
        self._scopes = (*named, *(scope for scope in self._scopes if scope not in named))
        self._authenticator.widen(self._base, self._asked, self._scopes)
        return True


def readable_scopes(text: str) -> tuple[str, ...]:
    """Return the scopes in *text* without the actions that write; `repository:a:pull,push` becomes `…:pull`.

    A scope's name may contain a colon: what stands before the first one is the type, after the last the actions.
    """
    scopes = []
    for scope in text.split()[:16]:
        name, colon, actions = scope.rpartition(":")
        kept = [action for action in actions.split(",") if action not in ("push", "delete")]
        if colon and kept and any(kept):
            scopes.append(f"{name}:{','.join(kept)}")
    return tuple(scopes)
