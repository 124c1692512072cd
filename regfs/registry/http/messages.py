"""Requests and answers, independent of the HTTP library.

Used by all of registry/; transport.py makes the answers. A Request is a value. An Answer belongs to the thread that
sent its request, holds a connection, and must be closed (or read to its end).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from regfs.errors import ProtocolViolation, RegistryTimeout, RegistryUnavailable, TooLarge
from regfs.registry.http.trust import SYSTEM_TRUST, Tls

_TARGET = re.compile(r"[^:/?#]+://[^/?#]*([^#]*)")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
# A body of up to this size is read to its end, so that the connection can be used again; a larger one is cut off.
_WORTH_DRAINING = 4096


class Origin(NamedTuple):
    """Scheme, host and port. No credential is sent to another origin."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of *url*. Raises ValueError where it has no host or an impossible port."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http or https URL with a host")
        return cls(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port == (443 if self.scheme == "https" else 80)
        return host if default else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to one URL, which is sent as it stands.

    *bulk* marks a transfer that may take long. With *body_limit*, the body of a 200 (at most so many bytes) is read
    together with the answer, so that a body that is cut is retried; without it, the body stays on the wire. A redirect
    to another origin is followed unless *stays*. *is_dispensable* says that another host can be asked, or none, where
    this one does not answer soon. *why* is a word for `.regfs/requests`.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    body: bytes | None = field(default=None, kw_only=True, repr=False)
    tls: Tls = field(default=SYSTEM_TRUST, kw_only=True)
    bulk: bool = field(default=False, kw_only=True)
    body_limit: int | None = field(default=None, kw_only=True)
    stays: bool = field(default=False, kw_only=True)
    is_dispensable: bool = field(default=False, kw_only=True)
    why: str = field(default="", kw_only=True)

    @property
    def origin(self) -> Origin:
        """The scheme, host and port that are asked."""
        return Origin.of(self.url)

    @property
    def place(self) -> str:
        """The URL of the host's root: all that requests and urllib3 need to know of the address."""
        return f"{self.origin.scheme}://{self.origin}/"

    @property
    def target(self) -> str:
        """Path and query for the request line, letter by letter as they stand in the URL: a signature is over them."""
        found = _TARGET.match(self.url)
        target = found.group(1) if found else ""
        return target if target.startswith("/") else f"/{target}"


class Headers:
    """The header fields of an answer: names without regard to case, repeated fields kept apart."""

    __slots__ = ("_fields",)

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            # Not strip(): in a header, whose bytes are read as Latin-1, the end of a UTF-8 letter looks like a space.
            self._fields.setdefault(name.lower(), []).append(value.strip(" \t"))

    def all(self, name: str) -> list[str]:
        """Return the values of every field called *name*, in their order."""
        return self._fields.get(name.lower(), [])

    def get(self, name: str) -> str | None:
        """Return the value of the first field called *name*, None where there is none."""
        return next(iter(self.all(name)), None)


def content_length(headers: Headers, request: Request) -> int | None:
    """Return the body's promised length. Raises ProtocolViolation if it is not a number, or more than one.

    urllib3 reads such a body until the connection closes and calls that success.
    """
    values = set(headers.all("Content-Length"))
    if not values:
        return None
    value = values.pop()
    if values or not (value.isascii() and value.isdigit()) or headers.get("Transfer-Encoding") is not None:
        raise ProtocolViolation(f"{request.origin}: the answer's Content-Length makes no sense")
    return int(value[:20])


class Answer:
    """A status, headers, and a body that is still on the wire."""

    def __init__(
        self,
        request: Request,
        status: int,
        *,
        headers: Headers,
        content_length: int | None,
        chunks: Iterator[bytes],
        close: Callable[[], None],
    ) -> None:
        self.request = request
        self.status = status
        self.headers = headers
        self.content_length = content_length
        self.error_body: bytes | None = None  # kept by error_answers.py, which reads the text more than once
        self.remedy = ""  # set by endpoint_calls.py on a 401 or 403: what the user can do
        self._body: bytes | None = None
        self._chunks = chunks
        self._close = close

    @property
    def url(self) -> str:
        """The URL that gave this answer."""
        return self.request.url

    @property
    def content_type(self) -> str:
        """The Content-Type without its parameters, lower case; empty where there is none, or none of RFC 6838."""
        media_type = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        return media_type if _MEDIA_TYPE.fullmatch(media_type) else ""

    def watch(self, moved: Callable[[int], None]) -> None:
        """Let *moved* hear of the size of each chunk of the body that is still to be read."""

        def watched(chunks: Iterator[bytes]) -> Iterator[bytes]:
            try:
                for chunk in chunks:
                    moved(len(chunk))
                    yield chunk
            finally:
                if isinstance(chunks, Generator):
                    chunks.close()

        self._chunks = watched(self._chunks)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's raw bytes as they arrive; the connection goes back to the pool at its end.

        Raises RegistryUnavailable if the connection breaks before the end that the headers promised.
        """
        return self._chunks

    def read(self, limit: int, *, what: str) -> bytes:
        """Return the whole body, read once. Raises TooLarge if it has more than *limit* bytes; *what* names it.

        For documents: a gzip body is decompressed, though the request asked for none.
        """
        if self._body is not None:
            return self._body
        if self.content_length is not None and self.content_length > limit:
            self.close()
            raise TooLarge(f"{what}: {self.content_length} bytes, the limit is {limit}")
        received = bytearray()
        for chunk in self._chunks:
            received += chunk
            if len(received) > limit:
                self.close()
                raise TooLarge(f"{what}: more than {limit} bytes")
        self.close()
        self._body = self._inflated(bytes(received), limit, what=what)
        return self._body

    def _inflated(self, body: bytes, limit: int, *, what: str) -> bytes:
        """Return *body* without a gzip around it. No document begins with gzip's two bytes itself."""
        encoding = (self.headers.get("Content-Encoding") or "").lower()
        if encoding not in ("gzip", "x-gzip") or not body.startswith(b"\x1f\x8b"):
            return body
        inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            content = inflater.decompress(body, limit + 1)
        except zlib.error:
            return body
        if len(content) > limit:
            raise TooLarge(f"{what}: more than {limit} bytes")
        return content

    def read_some(self, limit: int) -> bytes:
        """Return up to *limit* bytes of the body and close: for error texts."""
        received = bytearray()
        for chunk in self._chunks:
            received += chunk
            if len(received) >= limit:
                break
        self.close()
        return bytes(received[:limit])

    def discard(self) -> None:
        """Close; a short body is read first, so that its connection can be used again."""
        if self.content_length is not None and self.content_length <= _WORTH_DRAINING:
            try:
                for _chunk in self._chunks:
                    pass
            except (RegistryUnavailable, RegistryTimeout):
                pass  # the body is not needed
        self.close()

    def close(self) -> None:
        """Give the connection up, or back. May be called twice."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
