"""Authentication that goes wrong, seen by the user of a mount: F1, F5, F6 and F12 of the fault catalogue."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.faults.conftest import MOTD
from tests.support.fault_server import Action, FaultServer, changed, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry, error
from tests.support.registry import Certificates
from tests.support.served_tls import tls_of


def guarded(faulty: FaultyMount, **options: object) -> FaultServer:
    """Return a registry with app:1 that wants a token, for which the user of the mount is logged in."""
    registry = MemoryRegistry(tokens=True, **options)  # type: ignore[arg-type]
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    let_in(registry, faulty.log_in(server=server))
    return server


def let_in(registry: MemoryRegistry, login: tuple[str, str]) -> None:
    """Let the token server of *registry* know that user alone."""
    registry.users, registry.public = dict([login]), False


def token_server(faulty: FaultyMount, registry: MemoryRegistry) -> MemoryRegistry:
    """Return what answers for *registry* where a token is fetched from another host: it knows the same users."""
    tokens = MemoryRegistry(tokens=True, users=registry.users)
    tokens.granted, tokens.public = registry.granted, registry.public
    return tokens


def refusing(header: str) -> Action:
    """Answer 401 with this WWW-Authenticate."""
    return changed(lambda _right: error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", header))


def bearer(extra: str = "", realm: str = "/token") -> str:
    """Return the challenge that asks for a token of *realm*."""
    return f'Bearer realm="{realm}",service="registry.test"{extra}'


def tokens_fetched(server: FaultServer) -> int:
    """Return how many tokens for app the server was asked for."""
    return len(server.paths("/token.*repository%3Aapp"))


def shown(server: FaultServer) -> set[str | None]:
    """Return the different Authorizations that the registry itself was shown."""
    return set(server.headers("authorization", " /v2/"))


def test_f1_401_for_ever_is_denied_after_a_token_or_two(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    server.on("*", "^/v2/", refusing(bearer()))
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EACCES"
    # Whether it is there is asked first, so that the token is in use by then: each question may take a new one once.
    assert len(server.paths("/v2/app/tags/list$")) <= 2
    assert tokens_fetched(server) <= len(server.paths("/v2/app/tags")) <= 6
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert f"{server.address}/app" in faulty.errors()
    faulty.heal()
    faulty.recovers(faulty.path(MOTD, server=server))


def test_f5_a_password_is_not_sent_from_https_to_a_plain_token_server(
    faulty: FaultyMount, certificates: Certificates
) -> None:
    tokens = faulty.other_server(MemoryRegistry(tokens=True))
    registry = MemoryRegistry(tokens=True, realm=f"{tokens.url}/token")
    server = faulty.new_server(registry, tls=tls_of(certificates))
    faulty.hosts_toml(server.address, f'server = "{server.url}"\nca = "{certificates.authority}"')
    faulty.push_app(server=server)
    faulty.log_in(server=server)
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert "over plain http" in faulty.errors()
    assert (tokens.connections, shown(server)) == (0, {None})


def test_f5_a_token_server_on_another_host_is_shown_the_password_and_nothing_else(faulty: FaultyMount) -> None:
    registry = MemoryRegistry(tokens=True)
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    tokens = faulty.new_server(host="127.0.0.2")
    let_in(registry, faulty.log_in(tokens, server=server))
    tokens.application, registry.realm = token_server(faulty, registry), f"{tokens.url}/token"
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert tokens.paths("^(?!GET /token)") == []
    assert [str(one).split()[0] for one in set(tokens.headers("authorization"))] == ["Basic"]
    assert {str(one).split()[0] for one in shown(server)} == {"None", "Bearer"}


def test_f6_a_redirect_of_the_token_server_carries_no_password(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    registry = server.application
    assert isinstance(registry, MemoryRegistry)
    tokens = MemoryRegistry(tokens=True)
    tokens.granted = registry.granted
    elsewhere = faulty.other_server(tokens)
    moved = f"{elsewhere.url}/token?scope=repository:app:pull"
    server.on("GET", "^/token", reply(307, headers={"Location": moved}))
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert elsewhere.paths() == ["GET /token?scope=repository:app:pull"]


def test_f12_403_of_a_web_page_is_a_denial_with_its_text(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    page = "<html><b>Blocked</b>\x1b[31m by policy</html>"
    server.on("*", "^/v2/", reply(403, page, {"Content-Type": "text/html"}))
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EACCES"
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert "Blocked" in faulty.errors()
    assert "by policy" in faulty.errors()
    assert "\x1b" not in faulty.errors()
    faulty.heal()
    faulty.recovers(faulty.path(MOTD, server=server))
