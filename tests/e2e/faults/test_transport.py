"""Connections and answers that go wrong, seen by the user of a mount: F18, F19 and F23 of the fault catalogue."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regfs.model.digest import Digest
from tests.e2e.conftest import becomes
from tests.e2e.faults.conftest import MOTD, by_both_drivers, by_itself
from tests.support.fault_server import Action, Connection, FaultServer, drip, raw, silence
from tests.support.faulty_mount import FaultyMount
from tests.support.variants import all_at_once

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def with_app(faulty: FaultyMount) -> FaultServer:
    """Return a registry with app:1."""
    server = faulty.new_server()
    faulty.push_app(server=server)
    return server


HANGING: dict[str, Action] = {
    "silence": silence,
    "header drip": drip(b"HTTP/1.1 200 OK\r\n" + b"X-Header: yes\r\n" * 1000),
    "endless headers": drip(b"HTTP/1.1 200 OK\r\nX-Header: " + b"y" * 10000),
    "body drip": drip(HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000),
    "chunk drip": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1000),
}


@by_itself
@by_both_drivers
def test_f18_a_registry_that_hangs_costs_its_reader_a_deadline_and_others_nothing(faulty: FaultyMount) -> None:
    servers = {what: with_app(faulty) for what in HANGING}
    faulty.mount("--timeout", "1s")
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


@by_itself
@by_both_drivers
def test_f18_content_that_stops_in_the_middle_costs_its_reader_a_deadline(faulty: FaultyMount) -> None:
    server = faulty.new_server()
    blob = faulty.push_app(server=server).layers[0].digest
    faulty.mount("--timeout", "1s")
    assert faulty.patiently(faulty.path("app/1/config.json", server=server).read_bytes)
    go_on = threading.Event()

    def half(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[: len(response.body) // 2])
        go_on.wait(250)
        return False

    server.on("GET", "/blobs/", half)
    paths = {name: faulty.path(name, server=server) for name in (MOTD, "app/1/layers/0/tree", f"app/1/blobs/{blob}")}

    stalled = f"{server.address}.*no progress for 1 s"

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


GARBAGE = {
    "70 KB header": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "other protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
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


def test_f23_a_name_that_cannot_be_resolved_is_unreachable_and_not_missing(faulty: FaultyMount) -> None:
    directory = faulty.mounted.path / "no-such-registry.invalid"
    retries = faulty.mounted.stats().get("registry.retries", 0)
    for path in (directory / MOTD, directory / "app/1", directory / "library/app/1/digest"):
        assert faulty.fails(path, os.stat) == "EHOSTUNREACH"
    assert faulty.fails(directory / "app", os.listdir) == "EHOSTUNREACH"
    assert "no-such-registry.invalid" in faulty.errors()
    assert "cannot be resolved" in faulty.errors()
    assert faulty.neighbour_lives()
    assert faulty.mounted.stats().get("registry.retries", 0) == retries


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
