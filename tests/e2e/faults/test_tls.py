"""Certificates that are not to be trusted, seen by the user of a mount: F22 of the fault catalogue."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from tests.e2e.faults.conftest import MOTD
from tests.support.fault_server import FaultServer, changed
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry
from tests.support.registry import Certificates
from tests.support.served_tls import tls_of


def logged_in(faulty: FaultyMount, tls: ssl.SSLContext, *, host: str = "127.0.0.1") -> FaultServer:
    """Return a registry with TLS and app:1, which wants the password that the user of the mount has."""
    registry = MemoryRegistry()
    server = faulty.new_server(registry, host=host, tls=tls)
    faulty.push_app(server=server)
    registry.users = dict([faulty.log_in(server=server)])
    return server


def is_not_trusted(faulty: FaultyMount, server: FaultServer, why: str) -> None:
    """Insist that no request is sent, neither with TLS nor without, and that no question connects more than once."""
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EIO"
    # The questions: whether `app` exists, for a look-up (libfuse looks up twice), and which tags it has.
    assert (server.connections <= 3, server.paths()) == (True, [])
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EIO"
    assert server.paths() == []
    assert server.address in faulty.errors()
    assert why in faulty.errors()
    assert faulty.neighbour_lives()


def test_f22_an_unknown_authority_is_not_trusted_until_it_is_known(
    faulty: FaultyMount, certificates: Certificates
) -> None:
    server = logged_in(faulty, tls_of(certificates))
    is_not_trusted(faulty, server, "certificate is not trusted")
    faulty.hosts_toml(server.address, f'server = "{server.url}"\nca = "{certificates.authority}"')
    faulty.recovers(faulty.path(MOTD, server=server))


def test_f22_a_registry_that_demands_a_client_certificate_is_an_error_until_it_gets_one(
    faulty: FaultyMount, certificates: Certificates
) -> None:
    server = logged_in(faulty, tls_of(certificates, clients=True))
    trusted = f'server = "{server.url}"\nca = "{certificates.authority}"\n'
    faulty.hosts_toml(server.address, trusted)
    assert faulty.fails(faulty.path("app", server=server), os.listdir) in ("EIO", "EHOSTUNREACH")
    assert server.paths() == []
    assert server.address in faulty.errors()
    pair = f'client = [["{certificates.client_certificate}", "{certificates.client_key}"]]'
    faulty.hosts_toml(server.address, trusted + pair)
    faulty.recovers(faulty.path(MOTD, server=server))


def test_f22_a_token_server_that_cannot_be_trusted_is_shown_no_password(
    faulty: FaultyMount, certificates: Certificates
) -> None:
    tokens = faulty.other_server(tls=tls_of(certificates))
    server = logged_in(faulty, tls_of(certificates))
    faulty.hosts_toml(server.address, f'server = "{server.url}"\nca = "{certificates.authority}"')
    challenge = f'Bearer realm="{tokens.url}/token",service="registry.test"'
    server.on("*", "^/v2/", changed(lambda right: right.with_header("WWW-Authenticate", challenge)))
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EIO"
    assert tokens.paths() == []
    server.heal()
    faulty.recovers(faulty.path(MOTD, server=server))
