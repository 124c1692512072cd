"""Hosts with several addresses, some of them dead: RFC 8305. No test measures time; a dead address has an hour."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from regfs.errors import Interrupted, RegistryTimeout, RegistryUnavailable
from regfs.process.waiting.deadline import Deadline, under
from regfs.registry.http.connecting import ADDRESSES_LIMIT, Address, Connector, interleaved
from regfs.registry.http.sockets import ConnectFailed, ConnectTimeout, Pace
from tests.support.client_rig import Rig, repository_of
from tests.support.memory_registry import MemoryRegistry

HOUR = Pace(connect_s=3600.0)
NAME = "registry.example"
Names = Callable[..., None]


class Silent:
    """A port on which connections are neither taken nor refused: its backlog is full."""

    def __init__(self, host: str, port: int) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(0)
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex((host, port))

    def close(self) -> None:
        for one in (self._listener, *self._fillers):
            one.close()


class Listening:
    """A port that takes connections, and tells how many came."""

    def __init__(self, host: str, port: int = 0) -> None:
        self._listener = socket.create_server((host, port), backlog=64)
        self.port = self._listener.getsockname()[1]

    def accepted(self) -> int:
        self._listener.setblocking(False)
        count = 0
        while True:
            try:
                self._listener.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return a function that lets NAME have the addresses that it is given, in this order."""

    def resolve_to(*hosts: str) -> None:
        def getaddrinfo(_host: str, port: int, **_more: object) -> list[Address]:
            return [address_of(host, port) for host in hosts]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve_to


@pytest.fixture
def good() -> Iterator[Listening]:
    made = Listening("127.0.0.9")
    yield made
    made.close()


@pytest.fixture
def silent(good: Listening) -> Iterator[Silent]:
    """127.0.0.8 does not answer at the port where 127.0.0.9 does."""
    made = Silent("127.0.0.8", good.port)
    yield made
    made.close()


def address_of(host: str, port: int) -> Address:
    if ":" in host:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


def peer(connector: Connector, port: int) -> str:
    with connector.connect(NAME, port) as connection:
        return str(connection.getpeername()[0])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_dead_address_does_not_hold_up_the_next(names: Names, good: Listening, silent: Silent) -> None:
    names("127.0.0.8", "127.0.0.8", "127.0.0.9")
    connector = Connector(HOUR)
    before = descriptors()
    assert peer(connector, good.port) == "127.0.0.9"
    assert descriptors() == before


def test_an_address_that_lost_is_tried_last_for_a_while(
    names: Names, good: Listening, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    connect = socket.socket.connect

    class Noted(socket.socket):
        def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            tried.append(address[0])
            connect(self, address)

    names("127.0.0.8", "127.0.0.9")
    monkeypatch.setattr("regfs.registry.http.connecting.socket.socket", Noted)
    now = [0.0]
    connector = Connector(HOUR, clock=lambda: now[0])
    for _ in range(3):
        assert peer(connector, good.port) == "127.0.0.9"
    assert tried == ["127.0.0.8", "127.0.0.9", "127.0.0.9", "127.0.0.9"]
    now[0] += 301.0
    peer(connector, good.port)
    assert tried[4:] == ["127.0.0.8", "127.0.0.9"]


def test_an_address_that_refuses_gives_way_at_once(names: Names, good: Listening) -> None:
    names("127.0.0.7", "127.0.0.6", "127.0.0.9")
    assert peer(Connector(HOUR), good.port) == "127.0.0.9"


def test_the_first_address_that_answers_is_the_only_one_that_is_asked(names: Names, good: Listening) -> None:
    other = Listening("127.0.0.7", good.port)
    try:
        names("127.0.0.9", "127.0.0.7")
        assert peer(Connector(HOUR), good.port) == "127.0.0.9"
        assert (good.accepted(), other.accepted()) == (1, 0)
    finally:
        other.close()


def test_a_family_that_this_machine_does_not_have_does_not_matter(
    names: Names, good: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_ipv6(family: int, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *more)

    real = socket.socket
    monkeypatch.setattr("regfs.registry.http.connecting.socket.socket", without_ipv6)
    names("2001:db8::1", "127.0.0.9")
    assert peer(Connector(HOUR), good.port) == "127.0.0.9"


def test_families_take_turns() -> None:
    hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"]
    ordered = [address[4][0] for address in interleaved([address_of(host, 1) for host in hosts])]
    assert ordered == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
    assert interleaved([]) == []


def test_the_errors_of_all_addresses_are_told(names: Names, good: Listening, silent: Silent) -> None:
    names("127.0.0.8", "127.0.0.7")
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.7: Connection refused, 127\.0\.0\.8: no connection within"):
        Connector(Pace(connect_s=0.3)).connect(NAME, good.port)
    names("127.0.0.8")
    with pytest.raises(ConnectTimeout, match=r"cannot connect to registry\.example:\d+: no connection within 0\.3 s"):
        Connector(Pace(connect_s=0.3)).connect(NAME, good.port)
    names()
    with pytest.raises(ConnectFailed, match="it has no address"):
        Connector(HOUR).connect(NAME, good.port)


def test_a_name_with_hundreds_of_addresses_opens_few_sockets(names: Names, good: Listening, silent: Silent) -> None:
    names(*["127.0.0.8"] * 300)
    before = descriptors()
    with under(Deadline(0.1)), pytest.raises(RegistryTimeout):
        Connector(HOUR).connect(NAME, good.port)
    assert descriptors() == before
    names(*(f"127.0.1.{number}" for number in range(100)), "127.0.0.9")
    with pytest.raises(ConnectFailed) as caught:  # all refuse; the last one is not reached
        Connector(HOUR).connect(NAME, good.port)
    assert str(caught.value).count("refused") <= ADDRESSES_LIMIT
    assert good.accepted() == 0


def test_the_callers_deadline_and_interruption_end_a_race(names: Names, good: Listening, silent: Silent) -> None:
    names("127.0.0.8", "127.0.0.8")
    connector, before = Connector(HOUR), descriptors()
    with under(Deadline(0.1)), pytest.raises(RegistryTimeout):
        connector.connect(NAME, good.port)
    deadline = Deadline()
    threading.Timer(0.1, deadline.cancel).start()
    with under(deadline), pytest.raises(Interrupted):
        connector.connect(NAME, good.port)
    assert descriptors() == before


def test_a_resolver_that_hangs_costs_one_thread_and_the_callers_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    go, asked = threading.Event(), []

    def hang(host: str, port: int, **_more: object) -> list[Address]:
        asked.append(host)
        go.wait(60)
        return [address_of("127.0.0.1", port)]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    connector = Connector(HOUR)

    def give_up(_number: int) -> str:
        with under(Deadline(0.2)), pytest.raises(RegistryTimeout):
            connector.connect(NAME, 1)
        return "gave up"

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(give_up, range(10))) == ["gave up"] * 10
    go.set()
    assert asked == [NAME]


def test_a_registry_with_a_dead_address_opens(rig: Rig, names: Names) -> None:
    server = rig.server(MemoryRegistry(), host="127.0.0.9")
    server.application.add_image("demo/app", "v1")  # type: ignore[attr-defined]
    port = int(server.address.rpartition(":")[2])
    dead = Silent("127.0.0.8", port)
    try:
        names("127.0.0.8", "127.0.0.9")
        client = rig.client(server, pace=HOUR)
        rig.hosts_toml(server.address, f'server = "http://{NAME}:{port}"')
        assert client.listing.tags(repository_of(server)) == ["v1"]
    finally:
        dead.close()


def test_a_name_that_is_none_and_one_that_is_not_known_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_words: object, **_more: object) -> list[Address]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RegistryUnavailable, match=r"the name registry\.example cannot be resolved: Name or service"):
        Connector(HOUR).connect(NAME, 1)
