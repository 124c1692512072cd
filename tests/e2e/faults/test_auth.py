"""Authentication that goes wrong, seen by the user of a mount: F1 to F8 and F12 of the fault catalogue."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.fault_server import FaultServer, Response, changed
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry, error

ROOTFS = "app/1/rootfs"
MOTD = f"{ROOTFS}/motd"


def guarded(faulty: FaultyMount, *, realm: str = "/token") -> FaultServer:
    """Return a registry with app:1 that wants a token, for which the user of the mount is logged in."""
    registry = MemoryRegistry(tokens=True, realm=realm)
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    user, password = faulty.log_in(server=server)
    registry.users, registry.public = {user: password}, False
    return server


def bearer(extra: str = "", realm: str = "/token") -> Response:
    """Return a 401 that asks for a token."""
    return error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", f'Bearer realm="{realm}",service="s"{extra}')


def test_f1_401_for_ever_is_denied_after_one_token(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    server.on("*", "^/v2/", changed(lambda _right: bearer()))
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EACCES"
    assert len(server.paths("/v2/app/tags")) == 2
    assert len(server.paths("/token.*repository")) == 1
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert f"{server.address}/app" in faulty.errors()
    faulty.heal()
    faulty.recovers(faulty.path(MOTD, server=server))
