"""Takes secrets out of servers' texts: some repeat the request in their error, which goes to logs and users.

Used by error_answers.py and transport.py. Pure; any thread.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from urllib.parse import unquote_plus, urlsplit

from regfs.registry.http.messages import Request

_REDACTED = "***"
# A garbled page may stand where the text of an error is expected; this much of it is enough.
_REASON_LIMIT = 200
# A shorter secret would be found in the middle of words.
_SHORTEST = 4
_PLAIN_HEADERS = frozenset({"accept", "accept-encoding", "user-agent", "range", "content-type"})
_SECRET_FIELDS = frozenset({"password", "refresh_token", "access_token"})
# Parameters of the queries that regfs writes. Any other query is the server's, and its URL may be signed.
_PLAIN_QUERIES = frozenset(
    {"service", "scope", "account", "client_id", "n", "last", "ns", "artifactType", "page", "page_size"}
)


def without_secrets(text: str, request: Request) -> str:
    """Return *text* with every secret of *request* replaced."""
    secrets = {secret for secret in _secrets_of(request) if len(secret) >= _SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, _REDACTED)
    return text


def reason_of(error: BaseException, request: Request) -> str:
    """Return the text of *error* as one printable line, without the secrets of *request*."""
    text = without_secrets(str(getattr(error, "strerror", None) or error or type(error).__name__), request)
    return "".join(letter if letter.isprintable() else " " for letter in text[:_REASON_LIMIT])


def _secrets_of(request: Request) -> Iterator[str]:
    """Yield the values of headers that are not plain, of secret fields of a form, and of a signed URL."""
    for name, value in request.headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            scheme, _, credential = value.partition(" ")
            yield from (value, credential)
            if scheme.lower() == "basic":
                yield from _password_of(credential)
    form = (request.body or b"").decode("utf-8", "replace")
    yield from _values(form, lambda name: name in _SECRET_FIELDS)
    yield from _values(urlsplit(request.url).query, lambda name: name not in _PLAIN_QUERIES)


def _values(form: str, is_secret: Callable[[str], bool]) -> Iterator[str]:
    """Yield the secret values of a form or query, encoded and decoded."""
    for field in form.split("&"):
        name, _, value = field.partition("=")
        if is_secret(name):
            yield from (value, unquote_plus(value))


def _password_of(credential: str) -> Iterator[str]:
    try:
        yield base64.b64decode(credential).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return
