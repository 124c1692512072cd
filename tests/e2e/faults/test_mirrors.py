"""Mirrors that fail and registries that come and go, seen by the user of a mount: F69 and F70 of the fault catalogue.

Mirrors are declared in the user's hosts.toml. The registry wants a password, which no mirror is shown.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

from tests.e2e.conftest import becomes
from tests.e2e.faults.conftest import MOTD, by_itself
from tests.support.fault_server import (
    Action,
    Connection,
    FaultServer,
    Response,
    changed,
    close,
    cut,
    reply,
    reset,
)
from tests.support.faulty_mount import FaultyMount
from tests.support.images import BuiltImage
from tests.support.memory_registry import MemoryRegistry
from tests.support.variants import all_at_once


class Mirrored:
    """A registry that wants a password, with one app; and a mirror, which has a copy of what is there now."""

    def __init__(self, faulty: FaultyMount) -> None:
        self.registry = MemoryRegistry(users={})
        self.server = faulty.new_server(self.registry)
        self.image: BuiltImage = faulty.push_app(server=self.server)
        user, password = faulty.log_in(server=self.server)
        self.registry.users = {user: password}
        mirrored = MemoryRegistry()
        mirrored.repositories = copy.deepcopy(self.registry.repositories)
        self.mirror = faulty.other_server(mirrored)
        self.motd = faulty.path(MOTD, server=self.server)
        self._faulty = faulty
        faulty.hosts_toml(
            self.server.address,
            f'server = "{self.server.url}"\n[host."{self.mirror.url}"]\ncapabilities = ["pull", "resolve"]\n',
        )

    @property
    def blob(self) -> Path:
        return self._faulty.path(f"app/1/blobs/{self.image.layers[0].digest}", server=self.server)


FAILING: dict[str, Action] = {
    "404": reply(404, '{"errors":[{"code":"NAME_UNKNOWN"}]}'),
    "401": reply(401),
    "401 that wants a password": reply(401, headers={"WWW-Authenticate": 'Basic realm="mirror"'}),
    "403": reply(403),
    "429": reply(429, headers={"Retry-After": "3600"}),
    "503": reply(503),
    "a web page": reply(200, "<html>", {"Content-Type": "text/html"}),
    "nothing": reply(200),
    "reset": reset(),
    "close": close,
}


def test_f69_where_a_mirror_fails_the_registry_answers_and_no_password_comes_to_the_mirror(
    faulty: FaultyMount,
) -> None:
    faulty.mount()
    failing = {name: Mirrored(faulty) for name in FAILING}
    for name, action in FAILING.items():
        failing[name].mirror.on("*", ".", action)

    def check(_name: str, mirrored: Mirrored) -> None:
        assert faulty.reads(mirrored.motd)
        assert os.listdir(faulty.path("app", server=mirrored.server)) == ["1"]
        asked = mirrored.mirror.paths("/v2/app/")
        assert asked != []
        assert all(
            path.endswith((f"?ns={mirrored.server.address}", f"&ns={mirrored.server.address}")) for path in asked
        )

    all_at_once(check, failing)
    assert faulty.errors() == ""


def flipped(right: Response) -> Response:
    """Return *right* with another last byte."""
    return Response(right.status, right.headers, right.body[:-1] + bytes([right.body[-1] ^ 1]))


def test_f69_wrong_bytes_of_a_mirror_are_not_shown_and_are_fetched_from_the_registry(faulty: FaultyMount) -> None:
    faulty.mount()
    wrong = {kind: Mirrored(faulty) for kind in ("manifests/sha256", "blobs")}
    for kind, mirrored in wrong.items():
        mirrored.mirror.on("GET", f"/{kind}", changed(flipped))

    def check(kind: str, mirrored: Mirrored) -> None:
        assert faulty.reads(mirrored.motd)
        assert mirrored.blob.read_bytes() == mirrored.image.layers[0].blob
        wrong_one = str(mirrored.image.layers[0].digest) if kind == "blobs" else kind
        assert len(mirrored.mirror.paths(wrong_one)) <= 2

    all_at_once(check, wrong)
    assert faulty.errors() == ""


@by_itself
def test_f70_a_registry_that_is_down_at_the_mount_is_there_once_it_comes_back(faulty: FaultyMount) -> None:
    image = faulty.push_app()
    faulty.server.stop()
    faulty.mount()
    assert os.listdir(faulty.mounted.path) != []
    for path, look in (("app", os.listdir), ("app/1/digest", os.stat), ("app/1/rootfs/motd", Path.read_bytes)):
        assert faulty.fails(faulty.path(path), look) == "EHOSTUNREACH"
    assert faulty.server.address in faulty.errors()
    assert faulty.neighbour_lives()
    server = faulty.restart(faulty.server)
    faulty.recovers(faulty.path(MOTD))
    assert os.listdir(faulty.path("app")) == ["1"]
    assert len(server.paths(f"GET .*/blobs/{image.layers[0].digest}")) == 1


@by_itself
def test_f70_what_an_earlier_mount_saw_is_there_without_its_registry_and_changes_when_it_is_back(
    faulty: FaultyMount,
) -> None:
    faulty.push_app()
    assert os.listdir(faulty.path("app")) == ["1"]
    assert faulty.reads(faulty.path(MOTD))
    faulty.server.stop()
    faulty.remount()
    assert faulty.server.address in os.listdir(faulty.mounted.path)
    assert os.listdir(faulty.path("app")) == ["1"]
    assert faulty.reads(faulty.path(MOTD))
    assert faulty.fails(faulty.path("app/2/digest"), os.stat) == "EHOSTUNREACH"
    faulty.restart(faulty.server)
    faulty.push_app()
    becomes(lambda: faulty.reads(faulty.path(MOTD)), True)
    assert faulty.fails(faulty.path("app/2/digest"), os.stat) == "ENOENT"


def test_f70_a_registry_that_restarts_in_mid_transfer_is_not_noticed(faulty: FaultyMount) -> None:
    image = faulty.push_app(random_bytes=200_000)
    digest = str(image.layers[0].digest)
    server = faulty.server

    def cut_and_stop(connection: Connection) -> bool:
        cut(90_000)(connection)
        server.stop()
        restarted.append(faulty.restart(server))
        return False

    restarted: list[FaultServer] = []
    server.on("GET", f"/blobs/{digest}", cut_and_stop, times=1)
    assert faulty.reads(faulty.path(MOTD))
    assert len(restarted[0].paths(f"/blobs/{digest}")) == 1
    assert faulty.errors() == ""
