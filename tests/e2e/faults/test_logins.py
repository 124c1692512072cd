"""Logins that are broken, wanted by many at once, or half written: F9 to F11 of the fault catalogue, below a mount."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.faults.conftest import MOTD, by_both_drivers, by_itself
from tests.support.fault_server import FaultServer, Response, Seen, changed, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry, error

SECRET = "marked-secret-of-a-helper"
BROKEN = {
    "junk": f"echo {SECRET}",
    "fails": f"echo {SECRET} >&2; exit 1",
    "silent": "exit 0",
    "wrong": f'echo \'{{"Username": 1, "Secret": "{SECRET}"}}\'',
    "endless": f"yes {SECRET}",
    "killed": "kill -9 $$",
}


def with_helpers(faulty: FaultyMount, scripts: Mapping[str, str]) -> dict[str, str]:
    """Install docker-credential-NAME for each of *scripts*; return the environment that finds them."""
    directory = faulty.home / "bin"
    directory.mkdir(parents=True)
    for name, script in scripts.items():
        (directory / f"docker-credential-{name}").write_text(f"#!/bin/sh\n{script}\n")
        (directory / f"docker-credential-{name}").chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def guarded(faulty: FaultyMount, *, users: dict[str, str] | None = None) -> FaultServer:
    """Return a registry with app:1 that wants a token, which needs no login unless there are *users*."""
    server = faulty.new_server(MemoryRegistry(tokens=True, users=users))
    faulty.push_app(server=server)
    return server


def tokens_fetched(server: FaultServer) -> int:
    """Return how many tokens for app the server was asked for."""
    return len(server.paths("/token.*repository%3Aapp"))


@by_itself
def test_f9_a_broken_helper_is_warned_about_and_means_anonymous(faulty: FaultyMount) -> None:
    faulty.secret(SECRET)
    environment = with_helpers(faulty, BROKEN)
    servers = {name: guarded(faulty) for name in [*BROKEN, "missing"]}
    faulty.write_config({"credHelpers": {server.address: name for name, server in servers.items()}})
    mount = faulty.mount(environment=environment)
    for name, server in servers.items():
        assert faulty.reads(faulty.path(MOTD, server=server))
        assert f"docker-credential-{name}" in mount.log.read_text()
        assert set(server.headers("authorization", "/token")) == {None}
    assert faulty.errors() == ""


@by_itself
def test_f9_a_helper_that_works_opens_what_is_private(faulty: FaultyMount) -> None:
    server = guarded(faulty, users={"ada": SECRET})
    encoded = base64.b64encode(f"ada:{SECRET}".encode()).decode()
    for text in (SECRET, encoded):
        faulty.secret(text, server)
    answer = json.dumps({"Username": "ada", "Secret": SECRET})
    environment = with_helpers(faulty, {"right": f"read server; [ $server = {server.address} ] && echo '{answer}'"})
    faulty.write_config({"credHelpers": {server.address: "right"}})
    faulty.mount(environment=environment)
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert set(server.headers("authorization", "/token")) == {f"Basic {encoded}"}


@by_itself
@by_both_drivers
def test_f9_a_helper_that_hangs_costs_its_registry_a_deadline_and_others_nothing(faulty: FaultyMount) -> None:
    server, other = guarded(faulty), guarded(faulty)
    environment = with_helpers(faulty, {"hanging": "exec sleep 600"})
    faulty.write_config({"credHelpers": {server.address: "hanging"}})
    faulty.mount("--timeout", "500ms", environment=environment)
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(faulty.fails, faulty.path(MOTD, server=server), Path.read_bytes)
        assert faulty.reads(faulty.path(MOTD, server=other))
        assert faulty.neighbour_lives()
        assert waiter.result(250) == "ETIMEDOUT"
    assert server.address in faulty.errors()
    assert tokens_fetched(server) == 0


@by_both_drivers
def test_f10_fifty_readers_that_meet_a_401_fetch_one_token(faulty: FaultyMount) -> None:
    registry = MemoryRegistry(tokens=True)
    server = faulty.new_server(registry)
    for number in range(50):
        faulty.push_app(tag=str(number), server=server)
    user, password = faulty.log_in(server=server)
    registry.users, registry.public = {user: password}, False
    faulty.mount()
    together = threading.Barrier(50)

    def manifest(number: int) -> bytes:
        together.wait()
        return faulty.path(f"app/{number}/manifest.json", server=server).read_bytes()

    with ThreadPoolExecutor(50) as pool:
        read = list(pool.map(manifest, range(50)))
    assert {content for content, _type in registry.repositories["app"].manifests.values()} == set(read)
    assert tokens_fetched(server) == 1
    assert faulty.errors() == ""


@by_itself
def test_f11_a_config_that_is_half_written_keeps_the_last_login(faulty: FaultyMount) -> None:
    registry = MemoryRegistry(tokens=True)
    server = faulty.new_server(registry)
    for tag in ("1", "2", "3"):
        faulty.push_app(tag=tag, server=server)
    user, password = faulty.log_in(server=server)
    registry.users, registry.public = {user: password}, False
    assert faulty.reads(faulty.path(MOTD, server=server))
    faulty.write_config('{"auths": {"')
    registry.revoke()
    assert faulty.reads(faulty.path("app/2/rootfs/motd", server=server))
    assert "config.json" in faulty.mounted.log.read_text()
    assert None not in server.headers("authorization", "/token")
    registry.revoke()
    registry.users = dict([faulty.log_in(server=server)])
    assert faulty.reads(faulty.path("app/3/rootfs/motd", server=server))
    assert tokens_fetched(server) >= 3


class Hiding(MemoryRegistry):
    """Challenges at the root of its API alone; strangers get 404 for all else, and an empty catalog."""

    def _refused(self, seen: Seen, name: str, kind: str) -> Response | None:
        refused = super()._refused(seen, name, kind)
        if refused is None or (not name and kind != "_catalog"):
            return refused
        return error(404, "NAME_UNKNOWN") if name else Response(200, (), b'{"repositories":[]}')


def test_what_a_registry_hides_from_strangers_is_there_with_a_login(faulty: FaultyMount) -> None:
    for tokens in (False, True):
        registry = Hiding(tokens=tokens, users={})
        server = faulty.new_server(registry)
        faulty.push_app(server=server)
        registry.users = dict([faulty.log_in(server=server)])
        assert os.listdir(faulty.path("", server=server)) == ["app"]
        assert faulty.reads(faulty.path(MOTD, server=server))
    assert faulty.errors() == ""


def test_what_is_hidden_is_not_missing_while_the_way_to_log_in_is_unknown(faulty: FaultyMount) -> None:
    registry = Hiding(users={})
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    registry.users = dict([faulty.log_in(server=server)])
    server.on("*", "^/v2/$", reply(500))
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EHOSTUNREACH"
    assert "cannot be sent" in faulty.errors()
    faulty.heal()
    faulty.recovers(faulty.path(MOTD, server=server))


@by_itself
def test_a_helper_is_run_again_when_the_token_server_refuses_its_secret(faulty: FaultyMount) -> None:
    server = guarded(faulty, users={"ada": "first"})
    faulty.push_app(tag="2", server=server)
    registry = server.application
    assert isinstance(registry, MemoryRegistry)
    secret = faulty.home / "secret"
    printed = 'printf \'{"Username":"ada","Secret":"%s"}\' '
    environment = with_helpers(faulty, {"renewing": f'{printed} "$(cat {secret})"'})
    secret.write_text("first")
    faulty.write_config({"credHelpers": {server.address: "renewing"}})
    server.on("*", "^/token", changed(lambda right: right if right.status == 200 else error(401, "DENIED")))
    faulty.mount(environment=environment)
    assert faulty.reads(faulty.path(MOTD, server=server))
    registry.users = {"ada": "second"}
    registry.revoke()
    secret.write_text("second")
    assert faulty.reads(faulty.path("app/2/rootfs/motd", server=server))
    assert faulty.errors() == ""
