"""Authentication: what a registry wants to see before it answers, and where that comes from.

A registry's challenge says what it wants and from which token server. With a credential for the host the root of the
API is asked for its challenge first, because a registry may answer 404, or a shorter list, to strangers; without one a
request goes out as it is, and a challenge may come back. What was learnt is a hint that is kept for an hour, so that
the next request brings its token at once. One Login goes through one request:

    login = authenticator.login(endpoint, …)
    send with login.header(); on one of REFUSALS: if login.refused(answer): send again, else that is the verdict

Rules: a credential goes to its registry and to the token server that this registry names, never over plain http unless
the registry itself is plain; a token is kept per registry, token server, service, scopes and credential. A kept token
that is refused is fetched once more, and so is the secret of a helper that the registry or the token server refuses;
what was fetched for this very request is not, because a second one would fare no better. However many threads need
one token, one of them fetches it. Sources: distribution, docs/content/spec/auth/{token,oauth,scope}.md.

Used by calls.py. Thread rule: an Authenticator is shared by all threads, a Login belongs to one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from cachetools import TTLCache

from regfs.errors import (
    AccessDenied,
    BadContent,
    ProtocolViolation,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.model.names import RepositoryName, canonical_registry
from regfs.registry.auth.challenge import Challenge, parse_challenges
from regfs.registry.auth.demand import Demand, readable_scopes
from regfs.registry.auth.roots import Roots
from regfs.registry.auth.tokens import TokenRefused, TokenRequest, TokenServers, basic_authorization
from regfs.registry.credentials.lookup import Credential, Credentials
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.message import Answer

log = logging.getLogger(__name__)

# Statuses that may mean that the authorization is over. ECR Public says 400 of a token that has expired.
REFUSALS = frozenset({400, 401, 403})
_REMEMBERED = 4096
_HINT_S = 3600.0
_IN_VAIN_S = 30.0


class Authenticator:
    """Knows what each registry demanded, and answers it."""

    def __init__(
        self,
        credentials: Credentials,
        token_servers: TokenServers,
        roots: Roots,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.credentials = credentials
        self.token_servers = token_servers
        self.roots = roots
        self._lock = threading.Lock()
        # By base URL and scopes: Artifactory has a token server for each of its repositories. Without scopes: the last
        # one of the registry, for a first attempt.
        self._demands: TTLCache[tuple[str, tuple[str, ...]], Demand] = TTLCache(_REMEMBERED, _HINT_S, timer=clock)
        self._scopes: TTLCache[tuple[str, tuple[str, ...]], tuple[str, ...]] = TTLCache(
            _REMEMBERED, _HINT_S, timer=clock
        )
        self._in_vain: TTLCache[tuple[str, tuple[str, ...]], bool] = TTLCache(_REMEMBERED, _IN_VAIN_S, timer=clock)

    def login(
        self, endpoint: Endpoint, *, base: str, repository: RepositoryName | None, scopes: tuple[str, ...]
    ) -> Login:
        """Return the dealings of one request with authentication. *base* is the URL of the API that is asked."""
        return Login(self, endpoint, base=base, repository=repository, scopes=scopes)

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
        """Forget *demand*, which cannot be met: the registry at *base* may have mended it and says it again."""
        with self._lock:
            for key in ((base, asked), (base, ())):
                if self._demands.get(key) == demand:
                    del self._demands[key]
        self.roots.forget(base)

    def may_renew(self, base: str, asked: tuple[str, ...]) -> bool:
        """Tell whether a new token may help where a kept one was refused: not soon after one that did not."""
        with self._lock:
            return (base, asked) not in self._in_vain

    def renewed_in_vain(self, base: str, asked: tuple[str, ...]) -> None:
        """Remember that a new token for *asked* was refused like the one before: the request is at fault."""
        with self._lock:
            self._in_vain[base, asked] = True

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
        self._silence: RegfsError | None = None
        self._fresh = False
        self._replaced = False
        self._moved = False
        self._widened = False
        self._renewed = False

    def header(self) -> str | None:
        """Return the Authorization to send, None for none.

        May block on a credential helper, on the root of the API and on a token server. Raises AccessDenied, and what
        Exchange.ask raises.
        """
        self._demand = self._authenticator.demand(self._base, self._asked) or self._demand_of_root()
        self._token = None
        self._sent = None if self._demand is None else self._authorization(self._demand)
        return self._sent

    def refused(self, answer: Answer) -> bool:
        """Tell whether the request should be sent again with a new header(), now that *answer* is a refusal.

        A 401 says what is demanded. A 400 or 403 says it of what was sent, if of anything: a kept token may be over.
        """
        if answer.status != 401:
            return self._sent is not None and (self._token_is_over(answer.status) or self._credential_changed())
        before, demand = self._demand, self._learned(answer)
        if self._sent is None:
            return self._begin(demand)
        if demand is not None and demand.bearer is not None and self._widen(demand.bearer):
            return True
        if demand is not None and before is not None and demand.server != before.server and not self._moved:
            self._moved = True
            return True
        return self._token_is_over(answer.status) or self._credential_changed()

    @property
    def doubt(self) -> str:
        """Why a 404 does not count, empty where it does: there is a credential, and nothing says how to show it."""
        if self._silence is None or self._sent is not None or self._credential is None:
            return ""
        source = self._credential.source
        return f" to a stranger, and the credentials from {source} cannot be offered: {self._silence}"

    @property
    def remedy(self) -> str:
        """What to tell the user after the verdict: a registry says 401 for what is missing and for what is secret."""
        host = canonical_registry(self._endpoint.host)
        if self._credential is None:
            faults = "".join(f"; {fault}" for fault in self._authenticator.credentials.faults)
            return f"; it does not exist, or needs a login (docker login {host}){faults}"
        return f"; the credentials from {self._credential.source} do not open it: renew the login, or log out of {host}"

    def _demand_of_root(self) -> Demand | None:
        """Return what the API's root demands; it is asked only where there is a credential to offer."""
        roots = self._authenticator.roots
        root = roots.known(self._base)
        if root is None or root.is_silent:
            self._credential = self._find_credential()
            if self._credential is None:
                return None
            root = roots.said(self._endpoint, self._base)
            self._silence = root.failure if root.is_silent else None
        return self._authenticator.learn(self._base, (), root.challenges) if root.challenges else None

    def _learned(self, answer: Answer) -> Demand | None:
        """Return what a 401 demands; where it says nothing, the root of the API may (gcr.io)."""
        authenticator = self._authenticator
        demand = authenticator.learn(self._base, self._asked, answer.headers.all("WWW-Authenticate"))
        if demand is None and self._sent is None:
            root = authenticator.roots.ask(self._endpoint, self._base)
            demand = authenticator.learn(self._base, self._asked, root.challenges)
        return demand

    def _begin(self, demand: Demand | None) -> bool:
        """Tell whether the demand that a request without authorization met can be answered."""
        if demand is None or self._fresh:
            return False
        self._fresh = True
        self._add_scopes(demand.bearer)
        return demand.bearer is not None or self._find_credential() is not None

    def _token_is_over(self, status: int) -> bool:
        """Drop the token that was refused, and tell whether to fetch another one: once, and only for a kept one.

        A 400 or 403 may mean the request as well. A new token that changes nothing shows that, and for a while no
        other one is fetched for such an answer: a request that is really bad is not sent twice each time.
        """
        if self._token is None or self._sent is None:
            return False
        authenticator = self._authenticator
        if self._fresh:
            if self._replaced and status != 401:
                authenticator.renewed_in_vain(self._base, self._asked)
            return False
        if status != 401 and not authenticator.may_renew(self._base, self._asked):
            return False
        authenticator.token_servers.forget(self._token, self._sent)
        self._fresh = self._replaced = True
        return True

    def _authorization(self, demand: Demand) -> str | None:
        """Return the Authorization that meets *demand*; a helper whose secret the token server refuses is run again."""
        self._credential = self._find_credential()
        try:
            return self._shown(demand)
        except TokenRefused:
            if not self._credential_changed():
                raise
            self._credential = self._find_credential()
            return self._shown(demand)

    def _shown(self, demand: Demand) -> str | None:
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
        credentials = self._authenticator.credentials
        if self._own_repository is not None:
            return credentials.for_repository(self._own_repository)
        return credentials.for_host(self._endpoint.host)

    @property
    def _own_repository(self) -> RepositoryName | None:
        """The repository, where the registry itself is asked; None where another host is, by whatever file.

        That host is shown its own credentials alone, be it a mirror or what hosts.toml and registries.conf put in the
        registry's place.
        """
        if self._repository is None or canonical_registry(self._endpoint.host) != self._repository.registry:
            return None
        return self._repository

    def _credential_changed(self) -> bool:
        """Tell whether the credential is another one by now: a login was renewed, a helper has a new password.

        A helper that gives the same secret again is not believed: it would be refused again.
        """
        if self._renewed or self._credential is None:
            return False
        self._renewed = True
        repository = self._own_repository
        self._authenticator.credentials.forget(self._endpoint.host if repository is None else repository.registry)
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
        """Tell whether *challenge* names scopes that were not asked for: once, or two scopes would alternate."""
        if self._widened:
            return False
        named = readable_scopes(challenge.get("scope"))
        if not set(named) - set(self._scopes):
            return False
        self._widened = True
        # The new ones first: some registries look only at the first.
        self._scopes = (*named, *(scope for scope in self._scopes if scope not in named))
        self._authenticator.widen(self._base, self._asked, self._scopes)
        return True
