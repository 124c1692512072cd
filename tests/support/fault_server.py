"""An HTTP server over raw sockets that misbehaves by rule, and writes down what it was asked.

    server = FaultServer(MemoryRegistry())
    server.on("GET", r"/blobs/", cut(1000), times=1)
    server.paths()      ["GET /v2/demo/blobs/sha256:…", …]

A rule says when (method, a pattern in the path), what (an action) and how often; requests that no rule is for go to
the application behind, so that a fault is a deviation from right behaviour. An action writes what it likes to the
connection; it returns True where the connection may serve another request. Threads: each connection has its own.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self

from tests.support.ports import Reserved

_HEAD_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived; header names are lower case. *connection* counts connections from 1."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer. Content-Length is added unless the headers have it or a Transfer-Encoding."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def with_header(self, name: str, value: str | None) -> Response:
        """Return the same with the header *name* replaced, or removed where *value* is None."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def head(self) -> bytes:
        """Return status line and headers as they are sent."""
        names = {name.lower() for name, _value in self.headers}
        fields = list(self.headers)
        if not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(self.body))))
        lines = [f"HTTP/1.1 {self.status} Status", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


class Application(Protocol):
    """What answers where nothing is wrong."""

    def respond(self, seen: Seen) -> Response: ...


@dataclass(slots=True)
class Connection:
    """What an action works with: the socket, the right answer, and an event that is set when the server stops."""

    socket: socket.socket
    seen: Seen
    right: Callable[[], Response]
    stopped: threading.Event

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self, response: Response) -> bool:
        """Send *response* as a server should (no body after a HEAD), and keep the connection."""
        body = b"" if self.seen.method == "HEAD" else response.body
        self.send(response.head() + body)
        return True


Action = Callable[[Connection], bool]


@dataclass(slots=True)
class Rule:
    """When and how often an action replaces the right answer."""

    method: str
    pattern: re.Pattern[str]
    action: Action
    times: int | None
    after: int
    used: int = 0

    def takes(self, seen: Seen) -> bool:
        """Tell whether this rule is for *seen*, and count that."""
        if self.method not in ("*", seen.method) or not self.pattern.search(seen.path):
            return False
        self.used += 1
        return self.used > self.after and (self.times is None or self.used <= self.after + self.times)


class Nothing:
    """An application that knows nothing: 404 for all."""

    def respond(self, seen: Seen) -> Response:
        return Response(404)


class FaultServer:
    """Serves *application* on *host*, at a free port unless *port* is given, with TLS where *tls* is.

    The port stays reserved while the object lives: once it has stopped, only a FaultServer with that *port* gets it.
    """

    def __init__(
        self,
        application: Application | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.application = application or Nothing()
        self.seen: list[Seen] = []
        self.connections = 0
        self._tls = tls
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._port = Reserved(host, port)
        self._listener = socket.create_server((host, self._port.number), backlog=128)
        self.address = f"{host}:{self._port.number}"
        self.url = f"{'https' if tls else 'http'}://{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, method: str, pattern: str, action: Action, *, times: int | None = None, after: int = 0) -> None:
        """Let *action* answer requests of *method* (`*`: any) with *pattern* in their path.

        The first *after* of them are let through, then *times* are taken, then the rule is used up. Earlier rules go
        first.
        """
        with self._lock:
            self._rules.append(Rule(method, re.compile(pattern), action, times, after))

    def heal(self) -> None:
        """Forget all rules: from now on nothing is wrong."""
        with self._lock:
            self._rules.clear()

    def paths(self, pattern: str = "") -> list[str]:
        """Return `METHOD path` of the requests so far that *pattern* is found in."""
        with self._lock:
            return [str(seen) for seen in self.seen if re.search(pattern, str(seen))]

    def headers(self, name: str, pattern: str = "") -> list[str | None]:
        """Return the header *name* of the requests so far that *pattern* is found in."""
        with self._lock:
            return [seen.headers.get(name.lower()) for seen in self.seen if re.search(pattern, str(seen))]

    def stop(self) -> None:
        """Close the port and all connections."""
        self._stopped.set()
        with self._lock:
            sockets = [self._listener, *self._open]
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed by its thread meanwhile
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._stopped.is_set():  # stop() has closed all that it knew of
                    connection.close()
                    return
                self.connections += 1
                number = self.connections
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        served = connection
        try:
            if self._tls is not None:
                served = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.add(served)
            while (seen := _read_request(served, number)) is not None and self._act(served, seen):
                pass
        except OSError:
            pass  # the client went away, which clients may do
        finally:
            with self._lock:
                self._open -= {connection, served}
            served.close()

    def _act(self, served: socket.socket, seen: Seen) -> bool:
        with self._lock:
            self.seen.append(seen)
            action = next((rule.action for rule in self._rules if rule.takes(seen)), None)
        connection = Connection(served, seen, lambda: self.application.respond(seen), self._stopped)
        return connection.answer(connection.right()) if action is None else action(connection)


def _read_request(connection: socket.socket, number: int) -> Seen | None:
    """Return the next request, None at the end; a TLS greeting gets the plain answer that Go's server gives."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk or len(received) > _HEAD_LIMIT:
            return None
        received += chunk
        if received[:1] == b"\x16":
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            return None
    head, _separator, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
    missing = int(headers.get("content-length", "0")) - len(body)
    while missing > 0 and (chunk := connection.recv(missing)):
        body += chunk
        missing -= len(chunk)
    return Seen(method, path, headers, body, number)


# Actions: what may go wrong.


def reply(status: int = 200, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> Action:
    """Answer just this."""
    content = body.encode() if isinstance(body, str) else body
    response = Response(status, tuple((headers or {}).items()), content)
    return lambda connection: connection.answer(response)


def changed(change: Callable[[Response], Response]) -> Action:
    """Answer what would be right, changed."""
    return lambda connection: connection.answer(change(connection.right()))


def raw(content: bytes) -> Action:
    """Send these bytes and close."""

    def act(connection: Connection) -> bool:
        connection.send(content)
        return False

    return act


def cut(after: int) -> Action:
    """Announce the whole body, and close after *after* bytes of it."""

    def act(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[:after])
        return False

    return act


def reset(after: int | None = None) -> Action:
    """Reset the connection: before any answer, or after *after* bytes of the body."""

    def act(connection: Connection) -> bool:
        if after is not None:
            response = connection.right()
            connection.send(response.head() + response.body[:after])
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return act


def close(connection: Connection) -> bool:
    """Close the connection without an answer."""
    return False


def silence(connection: Connection) -> bool:
    """Say nothing until the server stops."""
    connection.stopped.wait()
    return False


def drip(content: bytes, *, every_s: float = 0.05) -> Action:
    """Send *content* byte by byte."""

    def act(connection: Connection) -> bool:
        for byte in content:
            connection.send(bytes([byte]))
            if connection.stopped.wait(every_s):
                break
        return False

    return act


@dataclass(slots=True)
class Flood:
    """Send a head and then body without end, counting what the client took."""

    head: bytes
    sent: int = field(default=0)
    limit: int = 256 * 1024 * 1024

    def __call__(self, connection: Connection) -> bool:
        connection.send(self.head)
        block = b" " * 65536
        while self.sent < self.limit and not connection.stopped.is_set():
            connection.send(block)
            self.sent += len(block)
        return False
