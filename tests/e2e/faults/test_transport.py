"""Connections and answers that go wrong, seen by the user of a mount: F17 to F21, F23 and F24 of the catalogue."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from tests.e2e.conftest import becomes
from tests.e2e.faults.conftest import MOTD, by_both_drivers
from tests.support.fault_server import Action, Connection, FaultServer, drip, raw, reply, reset, silence
from tests.support.faulty_mount import FaultyMount, all_at_once

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TAGS = HEAD + b'Content-Length: 14\r\n\r\n{"tags":["1"]}'


def with_app(faulty: FaultyMount) -> FaultServer:
    """Return a registry with app:1."""
    server = faulty.new_server()
    faulty.push_app(server=server)
    return server


def test_f17_a_kept_connection_that_is_reset_is_replaced_silently(faulty: FaultyMount) -> None:
    server = with_app(faulty)
    listing, motd = faulty.path("app", server=server), faulty.path(MOTD, server=server)
    assert os.listdir(listing) == ["1"]
    for pattern in ("/tags/", "/manifests/", "/blobs/"):
        server.on("*", pattern, reset(), times=1)
    assert os.listdir(listing) == ["1"]
    assert faulty.reads(motd)
    assert faulty.errors() == ""
    assert faulty.mounted.stats().get("registry.retries", 0) <= 3  # one for each where the connection was a new one


HANGING: dict[str, Action] = {
    "silence": silence,
    "header drip": drip(b"HTTP/1.1 200 OK\r\n" + b"X-Header: yes\r\n" * 1000),
    "endless headers": drip(b"HTTP/1.1 200 OK\r\nX-Header: " + b"y" * 10000),
    "body drip": drip(HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000),
    "chunk drip": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1000),
}


@by_both_drivers
def test_f18_a_registry_that_hangs_costs_its_reader_a_deadline_and_others_nothing(faulty: FaultyMount) -> None:
    servers = {what: with_app(faulty) for what in HANGING}
    faulty.mount("--timeout", "3s")
    waiting: dict[str, tuple[Path, Callable[[Path], object]]] = {}
    for what, action in HANGING.items():
        servers[what].on("*", "/tags/|/manifests/", action)
        waiting[f"list, {what}"] = faulty.path("app", server=servers[what]), os.listdir
        waiting[f"read, {what}"] = faulty.path(MOTD, server=servers[what]), Path.read_bytes

    def hang(_what: str, asked: tuple[Path, Callable[[Path], object]]) -> None:
        assert faulty.fails(*asked) == "ETIMEDOUT"

    with ThreadPoolExecutor(1) as pool:
        alive = pool.submit(faulty.neighbour_lives)
        all_at_once(hang, waiting)
        assert alive.result(250)
    assert [server.address for server in servers.values() if server.address not in faulty.errors()] == []
    faulty.heal()
    faulty.remount()  # what hangs is given up after half a minute; nothing of it is kept
    for server in servers.values():
        assert faulty.reads(faulty.path(MOTD, server=server))


@by_both_drivers
def test_f18_content_that_stops_in_the_middle_costs_its_reader_a_deadline(faulty: FaultyMount) -> None:
    server = faulty.new_server()
    blob = faulty.push_app(server=server).layers[0].digest
    faulty.mount("--timeout", "3s")
    assert faulty.patiently(faulty.path("app/1/config.json", server=server).read_bytes)
    go_on = threading.Event()

    def half(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[: len(response.body) // 2])
        go_on.wait(250)
        return False

    server.on("GET", "/blobs/", half)
    paths = {name: faulty.path(name, server=server) for name in (MOTD, "app/1/layers/0/tree", f"app/1/blobs/{blob}")}

    stalled = f"{server.address}.*no progress for 3 s"

    def stop(_name: str, path: Path) -> None:
        assert faulty.fails(path, os.listdir if path.name == "tree" else Path.read_bytes) == "ETIMEDOUT"

    def told() -> int:
        all_at_once(stop, paths)
        return len(re.findall(stalled, faulty.errors()))

    becomes(lambda: told() >= len(paths), True)  # a busy machine alone may miss a deadline on the way there
    assert faulty.patiently(faulty.path("app/1/manifest.json", server=server).read_bytes)
    server.heal()
    go_on.set()
    faulty.recovers(paths[MOTD])
    assert Digest.of(faulty.patiently(paths[f"app/1/blobs/{blob}"].read_bytes)) == blob


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of somebody who takes connections and never says a word, not even TLS's first."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_f18_a_greeting_of_tls_that_never_ends_costs_its_reader_a_deadline(faulty: FaultyMount, deaf: str) -> None:
    faulty.hosts_toml(deaf, f'server = "https://{deaf}"')
    mount = faulty.mount("--timeout", "3s")
    assert faulty.fails(mount.path / deaf / MOTD, os.stat) == "ETIMEDOUT"
    assert deaf in faulty.errors()
    assert faulty.neighbour_lives()


GARBAGE = {
    "150 headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 150 + b"\r\n",
    "70 KB header": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "status line": b"HTTP/1.1 twohundred OK\r\n\r\n",
    "other protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "zeros": bytes(1000),
    "number": b"HTTP/1.1 99999 OK\r\n\r\n",
    "version": b"ICY 200 OK\r\n\r\n",
}
LENGTHS = {
    "twice": b"Content-Length: 5\r\nContent-Length: 9\r\n",
    "list": b"Content-Length: 5, 9\r\n",
    "negative": b"Content-Length: -7\r\n",
    "word": b"Content-Length: abc\r\n",
    "chunked too": b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n",
    "underscore": b"Content-Length: 1_4\r\n",
    "plus": b"Content-Length: +14\r\n",
}


def is_refused_everywhere(faulty: FaultyMount, server: FaultServer, action: Action) -> None:
    """Insist that this answer is EIO for a list, a manifest, a config and a layer, and that nothing is kept of it."""
    motd, config = faulty.path(MOTD, server=server), faulty.path("app/1/config.json", server=server)
    server.on("*", "/tags/|/manifests/", action)
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EIO"
    assert faulty.fails(motd, Path.read_bytes) == "EIO"
    server.heal()
    server.on("GET", "/blobs/", action)
    assert faulty.fails(config, Path.read_bytes) == "EIO"
    server.heal()
    assert config.read_bytes().startswith(b"{")
    server.on("GET", "/blobs/", action)
    assert faulty.fails(motd, Path.read_bytes) == "EIO"
    assert server.address in faulty.errors()
    server.heal()
    faulty.recovers(motd)
    assert os.listdir(faulty.path("app", server=server)) == ["1"]


def test_f19_an_answer_that_is_not_http_is_no_answer(faulty: FaultyMount) -> None:
    servers = {what: with_app(faulty) for what in GARBAGE}
    faulty.mount()
    all_at_once(lambda what, content: is_refused_everywhere(faulty, servers[what], raw(content)), GARBAGE)


def test_f20_a_content_length_without_sense_is_refused(faulty: FaultyMount) -> None:
    servers = {what: with_app(faulty) for what in LENGTHS}
    faulty.mount()

    def refused(what: str, length: bytes) -> None:
        answer = raw(b"HTTP/1.1 200 OK\r\n" + length + b'\r\n{"tags":["1"]}')
        is_refused_everywhere(faulty, servers[what], answer)

    all_at_once(refused, LENGTHS)


def test_f21_bytes_after_a_body_are_not_the_next_answer(faulty: FaultyMount) -> None:
    server = with_app(faulty)

    def answer_twice(connection: Connection) -> bool:
        connection.send(TAGS + TAGS.replace(b'"1"', b'"2"'))
        return True

    server.on("GET", "/tags/", answer_twice)
    for _ in range(3):
        assert os.listdir(faulty.path("app", server=server)) == ["1"]
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert faulty.errors() == ""


def test_f23_a_name_that_cannot_be_resolved_is_unreachable_and_not_missing(faulty: FaultyMount) -> None:
    directory = faulty.mounted.path / "no-such-registry.invalid"
    for path in (directory / MOTD, directory / "app/1", directory / "library/app/1/digest"):
        assert faulty.fails(path, os.stat) == "EHOSTUNREACH"
    assert faulty.fails(directory / "app", os.listdir) == "EHOSTUNREACH"
    assert "no-such-registry.invalid" in faulty.errors()
    assert "cannot be resolved" in faulty.errors()
    assert faulty.neighbour_lives()
    assert faulty.mounted.stats().get("registry.retries", 0) == 0


def test_f23_a_registry_that_refuses_connections_is_unreachable_until_it_is_back(faulty: FaultyMount) -> None:
    server = with_app(faulty)
    motd = faulty.path(MOTD, server=server)
    server.stop()
    assert faulty.fails(motd, Path.read_bytes) == "EHOSTUNREACH"
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EHOSTUNREACH"
    assert server.address in faulty.errors()
    assert faulty.neighbour_lives()
    host, _colon, port = server.address.rpartition(":")
    faulty.servers.append(FaultServer(server.application, host=host, port=int(port)))
    faulty.recovers(motd)


STATUSES = {str(status): status for status in (103, 201, 202, 203, 204, 205, 299, 304, 999, 600)}


def test_f24_a_success_of_another_kind_is_none(faulty: FaultyMount) -> None:
    servers = {what: with_app(faulty) for what in STATUSES}
    faulty.mount()

    def refused(what: str, status: int) -> None:
        server, expected = servers[what], {"EIO"} if status < 400 else {"EIO", "EHOSTUNREACH"}
        motd = faulty.path(MOTD, server=server)
        server.on("*", "/tags/|/manifests/", reply(status))
        assert faulty.fails(faulty.path("app", server=server), os.listdir) in expected
        assert faulty.fails(motd, Path.read_bytes) in expected
        server.heal()
        server.on("GET", "/blobs/", reply(status))
        assert faulty.fails(faulty.path("app/1/config.json", server=server), Path.read_bytes) in expected
        assert server.address in faulty.errors()
        server.heal()
        faulty.recovers(motd)

    all_at_once(refused, STATUSES)


def test_f24_100_continue_before_an_answer_is_skipped(faulty: FaultyMount) -> None:
    server = with_app(faulty)
    server.on("GET", "/tags/", raw(b"HTTP/1.1 100 Continue\r\n\r\n" + TAGS))
    assert os.listdir(faulty.path("app", server=server)) == ["1"]
