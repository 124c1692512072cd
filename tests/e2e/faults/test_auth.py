"""Authentication that goes wrong, seen by the user of a mount: F1 to F8 and F12 of the fault catalogue."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.e2e.faults.conftest import MOTD
from tests.support.fault_server import Action, Connection, FaultServer, Flood, Response, changed, raw, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.hello import host_architecture
from tests.support.images import file, image_of, layer
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
    """Let the token server of *registry* know that user, and nobody else."""
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


NO_TOKENS: dict[str, Action] = {
    "empty": reply(200, b"{}"),
    "html": reply(200, b"<html>login</html>"),
    "cut": reply(200, b"["),
    "null": reply(200, b'{"token":null}'),
    "number": reply(200, b'{"token":7}'),
    "newline": reply(200, b'{"token":"a\\r\\nX: y"}'),
    "deep": reply(200, b"[" * 60_000),
    "nothing": reply(200),
}


def test_f2_a_token_server_without_a_token_is_a_denial(faulty: FaultyMount) -> None:
    servers = {what: guarded(faulty) for what in NO_TOKENS}
    for what, server in servers.items():
        server.on("GET", "^/token", NO_TOKENS[what])
        assert (what, faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes)) == (what, "EACCES")
        assert shown(server) == {None}
        assert f"token server {server.address} answers without a token" in faulty.errors()
    faulty.heal()
    for server in servers.values():
        faulty.recovers(faulty.path(MOTD, server=server))


def test_f2_a_token_server_that_sends_without_end_is_read_for_a_moment(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    flood = Flood(b'HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n{"token":"')
    server.on("GET", "^/token", flood)
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert flood.sent < 32 * 1024 * 1024
    assert shown(server) == {None}


LIFETIMES: list[dict[str, object]] = [
    *({"expires_in": value} for value in (0, -1, 1e99, "300", None, True, [], float("nan"), 10**400)),
    *({"issued_at": value} for value in ("2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "yesterday", 7)),
]


def test_f3_a_token_of_any_lifetime_is_fetched_once_for_several_requests(faulty: FaultyMount) -> None:
    for fields in LIFETIMES:
        registry = MemoryRegistry(tokens=True)
        server = faulty.new_server(registry)
        faulty.push_app(server=server)
        let_in(registry, faulty.log_in(server=server))
        registry.token_fields = fields
        assert faulty.reads(faulty.path(MOTD, server=server))
        assert os.listdir(faulty.path("app", server=server)) == ["1"]
        assert (fields, tokens_fetched(server)) == (fields, 1)


def test_f4_a_token_that_is_revoked_in_a_transfer_is_replaced_and_the_transfer_resumed(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    registry = server.application
    assert isinstance(registry, MemoryRegistry)
    content = random.Random(4).randbytes(1_000_000)
    image = image_of(layer(file("big", content)), architecture=host_architecture())
    faulty.push("app", "big", image, server=server)

    def revoke_and_cut(connection: Connection) -> bool:
        response = connection.right()
        registry.revoke()
        connection.send(response.head() + response.body[:300_000])
        return False

    server.on("GET", f"/blobs/{image.layers[0].digest}", revoke_and_cut, times=1)
    assert faulty.path("app/big/rootfs/big", server=server).read_bytes() == content
    first, *others = server.headers("range", f"GET .*/blobs/{image.layers[0].digest}")
    assert (first, set(others)) == (None, {f"bytes=300000-{len(image.layers[0].blob) - 1}"})
    assert tokens_fetched(server) == 2
    assert faulty.errors() == ""


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


REALMS = ["file:///etc/passwd", "", "gopher://x/", "https://user@host/", "http://exa mple/", "https://[::1/"]


def test_f5_a_realm_that_is_no_web_address_is_refused_until_it_is_mended(faulty: FaultyMount) -> None:
    for realm in REALMS:
        server = guarded(faulty)
        server.on("*", "^/v2/", refusing(bearer(realm=realm)))
        assert (realm, faulty.fails(faulty.path("app", server=server), os.listdir)) == (realm, "EACCES")
        assert set(server.headers("authorization")) == {None}
        assert server.address in faulty.errors()
        server.heal()
        faulty.recovers(faulty.path(MOTD, server=server))


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


CHALLENGES = [
    'Negotiate, Basic realm="a, \\"b\\"", Bearer realm="/token",service="registry.test"',
    'Digest realm="x,y", nonce="z" , bearer realm=/token , Service="registry.test"',
    'Bearer realm="/token", error_description="say \\"please, Basic realm=x\\""',
]
JUNK = ["x" * 8192, '"' * 4000, "=,=,=" * 1000, 'Bearer realm="never ends', "Custom a=b", ""]


def test_f7_the_right_challenge_is_picked_among_many(faulty: FaultyMount) -> None:
    for header in CHALLENGES:
        server = guarded(faulty)
        server.on("*", "^/v2/$", refusing(header), times=1)
        assert faulty.reads(faulty.path(MOTD, server=server))
        assert tokens_fetched(server) == 1


def test_f7_a_challenge_of_junk_is_a_denial_and_forgotten(faulty: FaultyMount) -> None:
    for header in JUNK:
        server = guarded(faulty)
        server.on("*", "^/v2/", refusing(header))
        assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
        assert shown(server) == {None}
        server.heal()
        faulty.recovers(faulty.path(MOTD, server=server))


def test_f8_insufficient_scope_is_widened_once(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    scopes = iter(["repository:one:pull", "repository:two:pull"] * 50)

    def more(_right: Response) -> Response:
        extra = f',error="insufficient_scope",scope="{next(scopes)}"'
        return error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", bearer(extra))

    server.on("*", "/v2/app/tags", changed(more))
    assert faulty.fails(faulty.path("app", server=server), os.listdir) == "EACCES"
    assert len(server.paths("/v2/app/tags/list$")) <= 4
    assert tokens_fetched(server) <= len(server.paths("/v2/app/tags")) <= 12
    assert faulty.reads(faulty.path(MOTD, server=server))
    faulty.heal()
    assert os.listdir(faulty.path("app", server=server)) == ["1"]


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


def test_f12_407_is_the_proxys_refusal_and_shows_no_registry_password(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    server.on("*", ".", reply(407, headers={"Proxy-Authenticate": "Basic", "WWW-Authenticate": "Basic"}))
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EACCES"
    assert "proxy" in faulty.errors()
    assert set(server.headers("authorization")) == {None}
    faulty.heal()
    faulty.recovers(faulty.path(MOTD, server=server))


def test_f12_an_answer_of_a_proxy_that_is_no_http_is_no_missing_file(faulty: FaultyMount) -> None:
    server = guarded(faulty)
    server.on("*", "^/v2/", raw(b"<html>no such host</html>"))
    assert faulty.fails(faulty.path(MOTD, server=server), os.stat) == "EIO"
