"""Connections to hosts with several addresses: a dead one costs a quarter of a second, not its whole timeout.

Addresses are tried in turns of their families, each 250 ms after the one before it or as soon as that one has failed;
the first that connects wins, and the others are closed. An address that failed or lost a race is tried last for some
minutes. Source: RFC 8305 (Happy Eyeballs), sections 4 and 5. Used by transport.py. Thread rule: shared by all threads;
each connection is raced for in its caller's thread, under its deadline.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from functools import partial
from typing import Any

from cachetools import TTLCache

from regfs.process.waiting.single_flight import Flights
from regfs.registry.http.kept_connections import KeptConnections
from regfs.registry.http.sockets import SLICE_S, ConnectFailed, ConnectTimeout, Pace, WatchedSocket, wait_at_most

log = logging.getLogger(__name__)

STAGGER_S = 0.25
# A name may have hundreds of addresses; one connection opens at most so many sockets.
ADDRESSES_LIMIT = 16
_SLOW_KEPT_S = 300.0
_SLOW_LIMIT = 1024
# The system's resolver asks several servers several times, five seconds each.
_RESOLVED_WITHIN_S = 30.0
_REASONS_LIMIT = 4

# Family, type, protocol, canonical name, socket address: as getaddrinfo returns them.
Address = tuple[int, int, int, str, Any]


class Connector:
    """Connects to hosts, and remembers which of their addresses are slow or dead."""

    def __init__(self, pace: Pace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._lock = threading.Lock()
        self._slow: TTLCache[Any, bool] = TTLCache(_SLOW_LIMIT, _SLOW_KEPT_S, timer=clock)
        self._flights = Flights()
        self.kept = KeptConnections()

    def connect(self, host: str, port: int) -> WatchedSocket:
        """Return a connection to the first address of *host* that accepts one; blocks on the network.

        Raises ConnectFailed, ConnectTimeout, RegistryTimeout, Interrupted, WouldBlock, OutOfThreads.
        """
        addresses = self._in_order(self._resolve(host, port))
        with _Race(addresses, self._pace) as race:
            winner = race.run()
            self._remember(slow=race.losers, fast=race.won)
            if winner is not None:
                return WatchedSocket.over(winner, self._pace)
        kind = ConnectTimeout if race.is_timeout else ConnectFailed
        raise kind(f"cannot connect to {host}:{port}: {race.reason}")

    def _in_order(self, addresses: list[Address]) -> list[Address]:
        """Return *addresses* in the order of trial."""
        with self._lock:
            slow = [address[4] in self._slow for address in addresses]
        fresh = [address for address, is_slow in zip(addresses, slow, strict=True) if not is_slow]
        rest = [address for address, is_slow in zip(addresses, slow, strict=True) if is_slow]
        return [*interleaved(fresh), *interleaved(rest)][:ADDRESSES_LIMIT]

    def _remember(self, *, slow: Iterable[Address], fast: Address | None) -> None:
        with self._lock:
            for address in slow:
                self._slow[address[4]] = True
            if fast is not None:
                self._slow.pop(fast[4], None)

    def _resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of *host*, in the system's order of preference (RFC 6724).

        The system's resolver knows no deadline. So it runs in a flight, one for each name, which this thread waits for.
        """
        wait_at_most(0.0)
        resolution = self._flights.begin(("resolve", host, port), partial(_addresses, host, port))
        end = time.monotonic() + _RESOLVED_WITHIN_S
        while not wait([resolution], wait_at_most(SLICE_S)).done:
            if time.monotonic() >= end:
                raise ConnectTimeout(f"the name {host} was not resolved within {_RESOLVED_WITHIN_S:g} s")
        try:
            return resolution.result().result()
        except socket.gaierror as error:
            raise ConnectFailed(f"the name {host} cannot be resolved: {error.strerror}") from error
        except UnicodeError as error:
            raise ConnectFailed(f"{host!r} is not a host name") from error
        except OSError as error:
            raise ConnectFailed(f"the name {host} cannot be resolved: {error.strerror or error}") from error


def _addresses(host: str, port: int) -> list[Address]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class _Race:
    """The attempts of one connection. Belongs to one thread; as a context it closes all sockets but the winner."""

    def __init__(self, addresses: list[Address], pace: Pace) -> None:
        self._queue = deque(addresses)
        self._pace = pace
        self._selector = selectors.DefaultSelector()
        self._ends: dict[socket.socket, tuple[Address, float]] = {}  # in the order of their start
        self._next_start = time.monotonic()
        self._reasons: list[tuple[Address, str]] = []
        self._refused = False
        self._timed_out = False
        self.won: Address | None = None
        self.losers: list[Address] = []

    def run(self) -> socket.socket | None:
        """Return the first socket that connects, None where none does. Raises what wait_at_most raises."""
        while self._queue or self._ends:
            now = time.monotonic()
            if self._queue and now >= self._next_start:
                self._start(self._queue.popleft(), now)
                continue
            for key, _events in self._selector.select(self._wait_s(now)):
                connection: socket.socket = key.data
                error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error == 0:
                    return self._win(connection)
                self._fail(connection, OSError(error, os.strerror(error)))
            self._expire(time.monotonic())
        return None

    @property
    def is_timeout(self) -> bool:
        """Whether the host may be there and slow; a refusal says that nothing listens at the port."""
        return self._timed_out and not self._refused

    @property
    def reason(self) -> str:
        """Why there is no connection, for each address if there are several."""
        if len(self._reasons) < 2:
            return self._reasons[0][1] if self._reasons else "it has no address"
        told = [f"{address[4][0]}: {reason}" for address, reason in self._reasons[:_REASONS_LIMIT]]
        return ", ".join(told) + (", …" if len(self._reasons) > _REASONS_LIMIT else "")

    def __enter__(self) -> _Race:
        return self

    def __exit__(self, *_error: object) -> None:
        for connection in list(self._ends):
            self._drop(connection)
        self._selector.close()

    def _wait_s(self, now: float) -> float:
        """Return how long to wait for a connection before there is something else to do."""
        until = min(end for _address, end in self._ends.values())
        if self._queue:
            until = min(until, self._next_start)
        return wait_at_most(min(max(until - now, 0.0), SLICE_S))

    def _start(self, address: Address, now: float) -> None:
        wait_at_most(0.0)
        family, kind, protocol, _name, place = address
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that the kernel does not have; descriptors that ran out
            self._reasons.append((address, error.strerror or str(error)))
            return
        self._ends[connection] = (address, now + self._pace.connect_s)
        self._next_start = now + STAGGER_S
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            connection.connect(place)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(connection, error)
            return
        self._selector.register(connection, selectors.EVENT_WRITE, connection)

    def _win(self, connection: socket.socket) -> socket.socket:
        self.won, _end = self._ends[connection]
        for other, (address, _end) in self._ends.items():
            if other is connection:
                break
            self.losers.append(address)  # it began earlier and is not there yet
        self._selector.unregister(connection)
        del self._ends[connection]
        return connection

    def _fail(self, connection: socket.socket, error: OSError) -> None:
        address = self._drop(connection)
        self._refused = self._refused or isinstance(error, ConnectionRefusedError)
        self._reasons.append((address, error.strerror or str(error)))
        self.losers.append(address)
        self._next_start = time.monotonic()

    def _expire(self, now: float) -> None:
        """Give up the attempts that have had their time."""
        for connection, (address, end) in list(self._ends.items()):
            if now >= end:
                self._drop(connection)
                self._timed_out = True
                self._reasons.append((address, f"no connection within {self._pace.connect_s:g} s"))
                self.losers.append(address)
                self._next_start = now

    def _drop(self, connection: socket.socket) -> Address:
        address, _end = self._ends.pop(connection)
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        connection.close()
        return address


def interleaved(addresses: list[Address]) -> list[Address]:
    """Return *addresses* with their families taking turns, the first one's first. Source: RFC 8305, section 4."""
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], deque()).append(address)
    queues, order = list(families.values()), []
    while any(queues):
        order += [queue.popleft() for queue in queues if queue]
    return order
