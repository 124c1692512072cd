"""Sockets that keep the thread's deadline.

Timeouts of the socket module count from one byte to the next, so a server that sends one byte a second is never late.
Here every wait is cut into slices. Between two slices these are checked: the deadline, cancellation, the time within
which the answer must begin, and the rate of bytes.

Used by connecting.py, which makes them, and transport.py. Thread rule: a socket is used by one thread at a time;
`beginning_due` is per thread.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from regfs.errors import ProtocolViolation, RegistryTimeout, RegistryUnavailable
from regfs.process.waiting import deadline

log = logging.getLogger(__name__)

SLICE_S = 0.25
_PROBES = 3
_due = threading.local()


class Slow(RegistryTimeout):
    """The other side took longer than a registry gets; the caller's own deadline has not passed."""


class ConnectTimeout(Slow):
    """The other side did not accept the connection in time."""


class ConnectFailed(RegistryUnavailable):
    """No connection could be made (DNS, refused, no route): an immediate retry is useless."""


class TransferCut(RegistryUnavailable):
    """The connection broke in the middle of a body."""


class StaleConnection(RegistryUnavailable):
    """A kept connection was closed by the server before the request: sending it again is no retry."""


class NotTls(ConnectFailed):
    """The other side does not speak TLS on this port."""


class TlsFailed(ProtocolViolation):
    """The TLS handshake failed: one side does not trust or understand the other."""


class Pace(NamedTuple):
    """How slow a peer may be: seconds to connect, to begin its answer, between two bytes, and bytes per second.

    *answer_s* is for the first attempt at a small answer: it may have reached one server of many, which hangs.
    *longest_s*, the time that the user allows (--timeout), is for all others: a registry that scans a blob, spools it,
    or builds an image begins late, and would begin again at each retry. The kernel finds out whether the peer is still
    there: it probes a silent connection, and gives it up after *vanished_s*. *dispensable_s* is for the answer of a
    mirror, which must leave time to ask the next, and of the API's root, which other requests wait for. The rate is
    measured over *window_s* of waiting; time that the reader spends elsewhere does not count.
    """

    connect_s: float = 10.0
    answer_s: float = 30.0
    longest_s: float = 300.0
    vanished_s: float = 30.0
    dispensable_s: float = 10.0
    idle_s: float = 30.0
    rate: int = 1024
    window_s: float = 30.0


@contextmanager
def beginning_due(within_s: float) -> Iterator[None]:
    """Let this thread's reads in the block fail with Slow once *within_s* have passed.

    For the time until the headers or the first bytes of a body come: idle time and rate are not checked in it.
    """
    _due.at = time.monotonic() + within_s
    try:
        yield
    finally:
        _due.at = None


def wait_at_most(seconds: float) -> float:
    """Return how long this thread may wait now, at most *seconds*. Raises RegistryTimeout, Interrupted, WouldBlock."""
    allowed = deadline.current().remaining_s(seconds)
    due: float | None = getattr(_due, "at", None)
    if due is None:
        return allowed
    left_s = due - time.monotonic()
    if left_s <= 0:
        raise Slow("no answer within the time that a registry gets")
    return min(allowed, left_s)


class _Meter:
    """Measures one connection: how long it is silent, and how many bytes come per second of waiting."""

    __slots__ = ("_bytes", "_pace", "_waited_s")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._bytes = 0
        self._waited_s = 0.0

    def receive(self, receive: Callable[[], int], set_timeout: Callable[[float], None]) -> int:
        """Return what *receive* returns, waiting in slices. Raises Slow, RegistryTimeout, Interrupted."""
        began = time.monotonic()
        is_beginning = getattr(_due, "at", None) is not None
        while True:
            set_timeout(wait_at_most(min(SLICE_S, self._pace.idle_s)))
            try:
                count = receive()
            except TimeoutError as error:
                if error.errno == errno.ETIMEDOUT:  # from the kernel; the end of a slice has no errno
                    break
                silent_s = time.monotonic() - began
                if silent_s >= self._pace.idle_s and not is_beginning:
                    raise Slow(f"the connection was silent for {silent_s:.0f} s") from None
                continue
            if not is_beginning:
                self._judge(time.monotonic() - began, count)
            return count
        # Not within the handler: an error that has a TimeoutError as its context would be taken for a slow answer.
        raise ConnectionResetError(errno.ETIMEDOUT, "the other side has vanished")

    def _judge(self, waited_s: float, count: int) -> None:
        self._waited_s += waited_s
        self._bytes += count
        if self._waited_s < self._pace.window_s:
            return
        if self._bytes < self._pace.rate * self._waited_s:
            raise Slow(f"{self._bytes} bytes in {self._waited_s:.0f} s is too slow")
        self._waited_s, self._bytes = 0.0, 0


class WatchedSocket(socket.socket):
    """A connected TCP socket whose reads keep the thread's deadline and the Pace."""

    meter: _Meter

    @classmethod
    def over(cls, connected: socket.socket, pace: Pace) -> WatchedSocket:
        """Return a watched socket that takes *connected* over."""
        watched = cls(connected.family, connected.type, connected.proto, fileno=connected.detach())
        watched.meter = _Meter(pace)
        for option, value in _probing(pace.vanished_s):
            watched.setsockopt(*option, value)
        # For the TLS handshake, which the socket module bounds as a whole; reads have a timeout of their own.
        watched.settimeout(wait_at_most(pace.connect_s))
        return watched

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        read = super().recv_into
        return self.meter.receive(lambda: read(buffer, nbytes, flags), self.settimeout)


def _probing(vanished_s: float) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield the options by which the kernel notices within *vanished_s* that the peer is gone. Source: tcp(7)."""
    yield (socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1
    if sys.platform == "linux":
        probe_s = max(1, int(vanished_s / (_PROBES + 2)))
        yield (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), max(1, int(vanished_s) - _PROBES * probe_s)
        yield (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), probe_s
        yield (socket.IPPROTO_TCP, socket.TCP_KEEPCNT), _PROBES
        yield (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), int(vanished_s * 1000)


def tls_context_for(context: ssl.SSLContext, pace: Pace) -> ssl.SSLContext:
    """Let *context* make watched sockets; return it."""

    class WatchedTlsSocket(ssl.SSLSocket):
        def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
            meter = self.__dict__.setdefault("meter", _Meter(pace))
            read = super().recv_into
            received: int = meter.receive(lambda: read(buffer, nbytes, flags), self.settimeout)
            return received

    context.sslsocket_class = WatchedTlsSocket
    return context
