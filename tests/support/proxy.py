"""Servers that stand between regfs and a registry: they write down every request, and can answer in its place.

ReverseProxy forwards to a registry and records; a test sets `answer` to cut, corrupt, refuse or redirect. BlobHost is
the other host that registries redirect blobs to: it serves the registry's storage and takes no credentials, as object
stores do. memory_registry.py says when to take which of the registries for tests. Threads: each connection has its
own; `seen` may be read at any time.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import Reserved

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "date", "server"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer; *cut_after* closes the connection after that many bytes of a body announced whole."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with the usual five, the sixth connection waits for a second


class RecordingServer:
    """An HTTP server on a free port of *host* that records requests; `respond` decides what happens to them."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.seen: list[Seen] = []
        owner = self

        class Exchange(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_any(self) -> None:
                seen = Seen(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
                owner.seen.append(seen)
                length = int(seen.headers.get("content-length", "0"))
                owner.respond(self, seen, self.rfile.read(length))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Be quiet: `seen` is the log."""

        self._port = Reserved(host)
        self._server = _Server((host, self._port.number), Exchange)
        self.address = f"{host}:{self._server.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def respond(self, exchange: BaseHTTPRequestHandler, seen: Seen, body: bytes) -> None:
        raise NotImplementedError

    def paths(self, pattern: str = "") -> list[str]:
        """Return `METHOD path` of the recorded requests that *pattern* is found in."""
        return [str(seen) for seen in self.seen if re.search(pattern, str(seen))]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def send(exchange: BaseHTTPRequestHandler, answer: Answer) -> None:
    """Send *answer* to the client, cutting the connection where it says so."""
    exchange.send_response(answer.status)
    for name, value in answer.headers.items():
        exchange.send_header(name, value)
    if "content-length" not in {name.lower() for name in answer.headers}:
        exchange.send_header("Content-Length", str(len(answer.body)))
    exchange.end_headers()
    if exchange.command != "HEAD":
        exchange.wfile.write(answer.body[: answer.cut_after])
    if answer.cut_after is not None:
        exchange.close_connection = True


class ReverseProxy(RecordingServer):
    """Forwards to *upstream* (`host:port`, plain http), unless `answer` returns something for the request."""

    def __init__(self, upstream: str, *, host: str = "127.0.0.1") -> None:
        self._upstream = upstream
        self.answer: Callable[[Seen], Answer | None] = lambda _seen: None
        super().__init__(host)

    def respond(self, exchange: BaseHTTPRequestHandler, seen: Seen, body: bytes) -> None:
        made_up = self.answer(seen)
        send(exchange, made_up if made_up is not None else self.forward(seen, body))

    def forward(self, seen: Seen, body: bytes = b"") -> Answer:
        """Return the upstream's answer, with its links and challenges naming this server."""
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            sent = {name: value for name, value in seen.headers.items() if name not in _HOP_BY_HOP}
            connection.request(seen.method, seen.path, body=body or None, headers=sent | {"host": self.address})
            response = connection.getresponse()
            content = response.read()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
            if seen.method == "HEAD" and (length := response.getheader("Content-Length")):
                headers["Content-Length"] = length
            return Answer(response.status, headers, content)
        finally:
            connection.close()


class BlobHost(RecordingServer):
    """Serves blobs from a registry's *storage* directory at /DIGEST, with ranges; refuses requests with credentials."""

    def __init__(self, storage: Path, *, host: str = "127.0.0.2") -> None:
        self._storage = storage
        super().__init__(host)

    def respond(self, exchange: BaseHTTPRequestHandler, seen: Seen, body: bytes) -> None:
        if "authorization" in seen.headers or "cookie" in seen.headers:
            send(exchange, Answer(400, body=b"only one authentication mechanism is allowed"))
            return
        algorithm, _, hexadecimal = seen.path.strip("/").partition("?")[0].partition(":")
        path = self._storage / "docker/registry/v2/blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data"
        if not path.is_file():
            send(exchange, Answer(404))
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", ""))
        if not wanted:
            send(exchange, Answer(200, {"Accept-Ranges": "bytes"}, content))
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        span = f"bytes {first}-{last}/{len(content)}"
        send(exchange, Answer(206, {"Content-Range": span}, content[first : last + 1]))


class RedirectingProxy(ReverseProxy):
    """A registry that redirects every blob to *blob_host*, another address."""

    def __init__(self, upstream: str, blob_host: BlobHost, *, host: str = "127.0.0.1") -> None:
        super().__init__(upstream, host=host)
        self._blob_host = blob_host

    def forward(self, seen: Seen, body: bytes = b"") -> Answer:
        match = re.search(r"/blobs/(sha256:[0-9a-f]{64})$", seen.path)
        if (
            match
            and seen.method in {"GET", "HEAD"}
            and super().forward(Seen("HEAD", seen.path, seen.headers)).status == 200
        ):
            return Answer(307, {"Location": f"{self._blob_host.url}/{match[1]}?signature=secret"})
        return super().forward(seen, body)
