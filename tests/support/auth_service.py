"""A token server for docker-registry: it issues signed tokens by the GET and the POST flow, and writes down requests.

Source: distribution's "Token Authentication Specification" and "Token Scope Documentation". The key, its certificate
and the signatures are made by the openssl command, so that the tests need no cryptography package.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.support.proxy import Answer, RecordingServer, Seen, send

SERVICE = "registry.test"
ISSUER = "the tests"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class SigningKey:
    """An RSA key with a self-signed certificate, both below *directory*."""

    def __init__(self, directory: Path) -> None:
        self.key, self.certificate = directory / "token.key", directory / "token.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens",
             "-keyout", self.key, "-out", self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        lines = self.certificate.read_text().splitlines()
        self._chain = ["".join(line for line in lines if "CERTIFICATE" not in line)]

    def sign(self, claims: dict[str, object]) -> str:
        """Return a JSON Web Token (RS256) of *claims* that carries its certificate."""
        header = {"typ": "JWT", "alg": "RS256", "x5c": self._chain}
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_base64url(signature)}"


class TokenServer(RecordingServer):
    """Gives out tokens at /token: without a login to pull what is in *public*, for all else to *users*."""

    def __init__(
        self,
        directory: Path,
        *,
        users: dict[str, str] | None = None,
        public: tuple[str, ...] = (),
        lifetime_s: int = 300,
        host: str = "127.0.0.1",
    ) -> None:
        self._key = SigningKey(directory)
        self._users = users or {}
        self._public = public
        self._lifetime_s = lifetime_s
        super().__init__(host)

    def registry_configuration(self) -> dict[str, object]:
        """Return the `auth` section of docker-registry's configuration."""
        realm = {"realm": f"{self.url}/token", "service": SERVICE, "issuer": ISSUER}
        return {"token": realm | {"rootcertbundle": str(self._key.certificate)}}

    def respond(self, exchange: BaseHTTPRequestHandler, seen: Seen, body: bytes) -> None:
        query = urllib.parse.urlsplit(seen.path).query if seen.method == "GET" else body.decode()
        asked = urllib.parse.parse_qs(query)
        user = self._authenticated(seen, asked)
        if user is None and ("authorization" in seen.headers or "password" in asked):
            send(exchange, Answer(401, {"WWW-Authenticate": 'Basic realm="tokens"'}))
            return
        scopes = [scope for value in asked.get("scope", []) for scope in value.split()]
        token = self.issue(user, scopes)
        answer = {"token": token, "access_token": token, "expires_in": self._lifetime_s}
        send(exchange, Answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode()))

    def issue(self, user: str | None, scopes: list[str]) -> str:
        """Return a token for those of *scopes* that *user* (None: no login) may have."""
        now = int(time.time())
        claims: dict[str, object] = {"iss": ISSUER, "sub": user or "", "aud": SERVICE}
        claims |= {"iat": now, "nbf": now - 10, "exp": now + self._lifetime_s, "jti": f"{now}-{len(self.seen)}"}
        claims["access"] = [self._granted(user, scope) for scope in scopes]
        return self._key.sign(claims)

    def _authenticated(self, seen: Seen, asked: dict[str, list[str]]) -> str | None:
        kind, _, value = seen.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            user, _, password = base64.b64decode(value).decode().partition(":")
        else:
            user, password = asked.get("username", [""])[0], asked.get("password", [""])[0]
        return user if user and self._users.get(user) == password else None

    def _granted(self, user: str | None, scope: str) -> dict[str, object]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        allowed = actions.split(",") if user is not None else ["pull"] if name in self._public else []
        return {"type": kind, "name": name, "actions": [action for action in actions.split(",") if action in allowed]}
