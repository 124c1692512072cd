"""How a 401 (403, or 400) is handled: one request's authorization, from the first attempt to the verdict.

    authorization = RequestAuthorization(demands, endpoint, …)
    send with authorization.header(); on one of REFUSALS: if authorization.refused(answer): send again, else the answer
    is the verdict

1. With a credential for the host, the root of the API is asked for its challenge first, because a registry may answer
   404, or a shorter list, to anonymous requests. Without one the request goes out as it is.
2. A 401 brings a challenge (challenge.py); it says whether the registry wants a token or a password, and for which
   scopes (demand.py). A token is fetched (tokens.py), and the request is sent again.
3. A kept token that is refused is fetched once more, and so is the secret of a credential helper. A token that was
   fetched for this very request is not: another one would be refused too.

Rules: a credential goes to its registry and to the token server that this registry names, never over plain http unless
the registry itself is plain; a token is kept per registry, token server, service, scopes and credential.
Sources: distribution, docs/content/spec/auth/{token,oauth,scope}.md. Used by endpoint_calls.py. Thread rule: a
RequestAuthorization belongs to one thread.
"""

from __future__ import annotations

from regfs.errors import (
    AccessDenied,
    BadContent,
    ProtocolViolation,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
)
from regfs.model.names import RepositoryName, canonical_registry
from regfs.registry.auth.challenge import Challenge
from regfs.registry.auth.demand import Demand, readable_scopes
from regfs.registry.auth.known_demands import KnownDemands
from regfs.registry.auth.tokens import TokenRefused, TokenRequest, basic_authorization
from regfs.registry.credentials.credential import Credential
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.messages import Answer

# Statuses that may mean that the authorization has expired. ECR Public says 400 of a token that has.
REFUSALS = frozenset({400, 401, 403})


class RequestAuthorization:
    """One request's authorization, from the first attempt to the verdict."""

    def __init__(
        self,
        demands: KnownDemands,
        endpoint: Endpoint,
        *,
        base: str,
        repository: RepositoryName | None,
        scopes: tuple[str, ...],
    ) -> None:
        self._known = demands
        self._endpoint = endpoint
        self._base = base
        self._repository = repository
        self._asked = scopes
        self._scopes = demands.scopes(base, scopes)
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
        """Return the Authorization header to send, None for none.

        May block on a credential helper, on the root of the API and on a token server. Raises AccessDenied, and what
        RetryingSender.send raises.
        """
        self._demand = self._known.demand(self._base, self._asked) or self._demand_of_root()
        self._token = None
        self._sent = None if self._demand is None else self._authorization(self._demand)
        return self._sent

    def refused(self, answer: Answer) -> bool:
        """Tell whether the request should be sent again with a new header(), now that *answer* is a refusal.

        A 401 says what is demanded. A 400 or 403 may mean that the token which was sent has expired.
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
        """Why a 404 proves nothing, empty if it does: there is a credential, and no challenge that asks for it."""
        if self._silence is None or self._sent is not None or self._credential is None:
            return ""
        source = self._credential.source
        return f" to an anonymous request, and the credentials from {source} cannot be sent: {self._silence}"

    @property
    def remedy(self) -> str:
        """The remedy for messages: a registry answers 401 for names that are missing and for those that are private."""
        host = canonical_registry(self._endpoint.host)
        if self._credential is None:
            faults = "".join(f"; {fault}" for fault in self._known.credentials.faults)
            return f"; it does not exist, or needs a login (docker login {host}){faults}"
        return f"; the credentials for {host} from {self._credential.source} do not open it: {self._credential.remedy}"

    def _demand_of_root(self) -> Demand | None:
        """Return what the API's root demands; it is asked only if there is a credential to send."""
        roots = self._known.roots
        root = roots.known(self._base)
        if root is None or root.is_silent:
            self._credential = self._find_credential()
            if self._credential is None:
                return None
            root = roots.said(self._endpoint, self._base)
            self._silence = root.failure if root.is_silent else None
        return self._known.learn(self._base, (), root.challenges) if root.challenges else None

    def _learned(self, answer: Answer) -> Demand | None:
        """Return what a 401 demands; if it names no challenge, ask the root of the API (gcr.io)."""
        demands = self._known
        demand = demands.learn(self._base, self._asked, answer.headers.all("WWW-Authenticate"))
        if demand is None and self._sent is None:
            root = demands.roots.ask(self._endpoint, self._base)
            demand = demands.learn(self._base, self._asked, root.challenges)
        return demand

    def _begin(self, demand: Demand | None) -> bool:
        """Tell whether *demand*, the answer to a request without authorization, can be met."""
        if demand is None or self._fresh:
            return False
        self._fresh = True
        self._add_scopes(demand.bearer)
        return demand.bearer is not None or self._find_credential() is not None

    def _token_is_over(self, status: int) -> bool:
        """Drop the token that was refused, and tell whether to fetch another one: once, and only for a kept one.

        A 400 or 403 may be about the request instead. If a new token changes nothing, no other one is fetched for such
        an answer for a while, so that a bad request is not sent twice each time.
        """
        if self._token is None or self._sent is None:
            return False
        demands = self._known
        if self._fresh:
            if self._replaced and status != 401:
                demands.renewed_in_vain(self._base, self._asked)
            return False
        if status != 401 and not demands.may_renew(self._base, self._asked):
            return False
        demands.token_servers.forget(self._token, self._sent)
        self._fresh = self._replaced = True
        return True

    def _authorization(self, demand: Demand) -> str | None:
        """Return the Authorization that meets *demand*. If the token server refuses a helper's secret, run it again."""
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
        token_servers, is_known = self._known.token_servers, False
        try:
            token = TokenRequest.of(
                challenge, base=self._base, tls=self._endpoint.tls, scopes=self._scopes, credential=self._credential
            )
            is_known = token_servers.has_denied(token)
            value, is_new = token_servers.token(token)
        except (AccessDenied, BadContent, RegistryUnavailable, RegistryTimeout):
            if not is_known:  # a denial that is remembered costs the registry no request
                self._known.unlearn(self._base, self._asked, demand)
            raise
        self._token = token
        self._fresh = self._fresh or is_new
        return value

    def _find_credential(self) -> Credential | None:
        credentials = self._known.credentials
        if self._own_repository is not None:
            return credentials.for_repository(self._own_repository)
        return credentials.for_host(self._endpoint.host)

    @property
    def _own_repository(self) -> RepositoryName | None:
        """The repository if its registry is asked; None if another host is: a mirror, or the one that a file names.

        Such a host gets its own credentials, never the registry's.
        """
        if self._repository is None or canonical_registry(self._endpoint.host) != self._repository.registry:
            return None
        return self._repository

    def _credential_changed(self) -> bool:
        """Tell whether there is another credential by now: a login was renewed, a helper has a new password."""
        if self._renewed or self._credential is None:
            return False
        self._renewed = True
        repository = self._own_repository
        self._known.credentials.forget(self._endpoint.host if repository is None else repository.registry)
        return self._find_credential() != self._credential

    def _add_scopes(self, challenge: Challenge | None) -> None:
        """Add the scopes that the registry names to those that are known to be needed, without the right to write."""
        if challenge is None:
            return
        named = readable_scopes(challenge.get("scope"))
        missing = tuple(scope for scope in named if scope not in self._scopes)
        if missing:
            self._scopes += missing
            self._known.widen(self._base, self._asked, self._scopes)

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
        self._known.widen(self._base, self._asked, self._scopes)
        return True
