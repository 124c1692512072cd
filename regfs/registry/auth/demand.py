"""What a registry demands: the challenges that regfs can meet, and the scopes that it requests.

Source: distribution, docs/content/spec/auth/{token,scope}.md. Used by authorization.py and known_demands.py.
Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.registry.auth.challenge import Challenge


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
