"""One credential: what a registry or its token server is shown. Pure; any thread."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Username that says "the secret is an identity token": Docker's helpers, docker/cli native_store.go.
TOKEN_USERNAME = "<token>"  # noqa: S105 - a mark, no secret
# The variable that holds credentials itself: there is no login to renew.
VARIABLE = "DOCKER_AUTH_CONFIG"
_HEADER_TOKEN = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A user name with a password, an identity token (for OAuth2), or a registry token (a Bearer token as it is).

    *source* names the file, helper or variable that it came from. The repr shows no secret.
    """

    username: str
    password: str
    identity_token: str | None = None
    registry_token: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.registry_token is not None and not _HEADER_TOKEN.fullmatch(self.registry_token):
            raise ValueError("a registry token has characters that no header may have")

    @classmethod
    def made_of(cls, username: str, secret: str, *, source: str) -> Credential:
        """Return the credential of a name and a secret, which is an identity token for the name `<token>`."""
        if username == TOKEN_USERNAME:
            return cls("", "", identity_token=secret, source=source)
        return cls(username, secret, source=source)

    @property
    def remedy(self) -> str:
        """What to do where a registry refuses it."""
        return "change that variable, or unset it" if self.source == VARIABLE else "renew the login, or log out"

    def __repr__(self) -> str:
        kinds = {"password": self.password, "identity token": self.identity_token, "token": self.registry_token}
        held = ", ".join(kind for kind, secret in kinds.items() if secret)
        return f"Credential({self.username!r}, {held or 'nothing'}, from {self.source!r})"
