"""A mount with secrets of every kind, in good and in bad times, with the debug log on: none of them is ever written
down, and none is shown to a server that it is not for.

The servers look at every request, and everything that the daemon wrote is searched: the log, the whole cache, what is
below `.regfs`, what commands print, and the command lines of its processes (tests/support/faulty_mount.py, `close`).
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import DRIVERS, becomes
from tests.support.fault_server import Action, FaultServer, changed, close, cut, raw, reply, reset
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry, error
from tests.support.proxied import PUBLIC, ProxyOf
from tests.support.registry import Certificates, make_certificates
from tests.support.served_tls import tls_of
from tests.support.storage import Storage, to_storage
from tests.support.variants import all_at_once

MOTD = "app/1/rootfs/motd"
_STRANGE = "marked-text-of-a-location"
FAULTS: dict[str, Action | None] = {
    "right": None,
    "400": reply(400),
    "401": reply(401),
    "403": reply(403, "<Error><Code>AccessDenied</Code></Error>"),
    "404": reply(404),
    "429": reply(429, headers={"Retry-After": "999"}),
    "503": reply(503, headers={"Retry-After": "999"}),
    "reset": reset(),
    "close": close,
    "cut": cut(3),
    "garbage": raw(b"garbage\r\n\r\n"),
    "bad length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    "web page": reply(200, "<html>login</html>", {"Content-Type": "text/html"}),
    "circle": reply(307, headers={"Location": f"?X-Signature={_STRANGE}"}),
    "odd place": reply(307, headers={"Location": f"https://user:{_STRANGE}@10.0.0.1:bad/{_STRANGE}?a={_STRANGE}#b"}),
}


PLACES = ("registry", "tokens", "storage")


@pytest.fixture
def driver() -> str:
    """The driver of the mount: each has a debug log of its own, so that one test is made with both."""
    return "kernel"


@pytest.fixture
def faulty(driver: str, needs_fuse: None, tmp_path: Path) -> Iterator[FaultyMount]:
    """Servers and a mount of them; at the end everything is searched for the marked secrets."""
    made = FaultyMount(driver, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@dataclass(frozen=True)
class Guarded:
    """A registry with app:1, its token server, and the storage that it redirects to."""

    registry: FaultServer
    tokens: FaultServer
    storage: FaultServer
    header: str
    token: str
    signature: str

    def at(self, place: str) -> FaultServer:
        """Return the server at one of PLACES, which may see again what it puts into a Location."""
        return {"registry": self.registry, "tokens": self.tokens, "storage": self.storage}[place]

    def fail(self, place: str, action: Action | None) -> None:
        """Let one of the three misbehave."""
        if action is not None:
            self.at(place).on("*", "^/v2/" if place == "registry" else ".", action)
        self.registry.on("GET", "/blobs/", to_storage(self.storage, f"?X-Signature={self.signature}"))


def granting(registry: MemoryRegistry, token: str) -> None:
    """Let the token server give out *token*, and the registry take it."""
    registry.token_fields = {"token": token, "expires_in": 300}
    registry.granted[token] = {"repository:app:pull"}


def guarded(faulty: FaultyMount, number: int) -> Guarded:
    """Return servers with secrets of their own: a password, a token, a header, a signature and a cookie."""
    registry = MemoryRegistry(tokens=True)
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    tokens = faulty.new_server(registry, host="127.0.0.3")
    storage = faulty.other_server(Storage(registry))
    registry.realm, registry.public = f"{tokens.url}/token", False
    registry.users = dict([faulty.log_in(tokens, server=server)])
    made = Guarded(
        server,
        tokens,
        storage,
        header=faulty.secret(f"marked-header-{number}-", server),
        token=faulty.secret(f"marked-token-{number}-", server),
        signature=faulty.secret(f"marked-signature-{number}-", storage),
    )
    granting(registry, made.token)
    faulty.secret("session=marked-cookie")
    faulty.hosts_toml(server.address, f'server = "{server.url}"\n[header]\nX-Api-Key = "{made.header}"')
    return made


def look_around(faulty: FaultyMount, server: FaultServer, name: str = "app") -> None:
    """List, read and ask for what is not there, whatever fails."""

    def look(path: str, do: Callable[[Path], object]) -> None:
        with contextlib.suppress(OSError):
            do(faulty.path(path, server=server))

    asked: dict[str, Callable[[Path], object]] = {
        name: os.listdir,
        f"{name}/1/config.json": Path.read_bytes,
        f"{name}/1/rootfs/motd": Path.read_bytes,
        f"{name}/nothing/digest": os.stat,
    }
    all_at_once(look, asked)


def tell_all(faulty: FaultyMount) -> None:
    """Let the daemon tell what it can: its state, its statistics, and the stacks of its threads; nothing is secret."""
    mount = faulty.mounted
    for form in ("text", "json"):
        faulty.printed(mount.run(*mount.regfs, "status", "--format", form, mount.path).stdout)
    faulty.printed(mount.run(*mount.regfs, "cache", "du", "--cache-dir", mount.cache, check=False).stdout)
    for pid in mount.processes()[:1]:
        os.kill(pid, signal.SIGUSR1)
    assert " DEBUG " in mount.log.read_text()


@pytest.mark.parametrize(("driver", "first"), [("kernel", 0), ("fusepy", 1)], ids=DRIVERS)
def test_no_secret_is_written_or_shown_to_strangers_whatever_fails(faulty: FaultyMount, first: int) -> None:
    """Each fault is at another of the three places; tests/registry/test_secrets.py has each fault at each place."""
    servers = {what: guarded(faulty, number) for number, what in enumerate(FAULTS)}
    places = dict(zip(FAULTS, itertools.islice(itertools.cycle(PLACES), first, None), strict=False))
    faulty.secret(_STRANGE, *(servers[what].at(place) for what, place in places.items()))
    faulty.mount_in_foreground("--timeout", "2s")

    def look(what: str, action: Action | None) -> None:
        servers[what].fail(places[what], action)
        look_around(faulty, servers[what].registry)

    all_at_once(look, FAULTS)
    right = servers["right"]
    assert faulty.reads(faulty.path(MOTD, server=right.registry))
    assert set(right.registry.headers("x-api-key")) == {right.header}
    assert f"Bearer {right.token}" in right.registry.headers("authorization")
    assert len(set(right.storage.paths(right.signature))) == 2  # config and layer; a slow first try is tried again
    assert [str(value).split()[0] for value in set(right.tokens.headers("authorization"))] == ["Basic"]
    assert faulty.errors() != ""
    tell_all(faulty)


def helper_in(directory: Path, name: str, secret: str) -> dict[str, str]:
    """Install a credential helper that answers with *secret*, and says it on standard error, too."""
    directory.mkdir(parents=True)
    answer = json.dumps({"Username": "ada", "Secret": secret})
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\necho '{secret}' >&2\necho '{answer}'\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def basic_of(user: str, secret: str) -> str:
    return base64.b64encode(f"{user}:{secret}".encode()).decode()


def with_app(faulty: FaultyMount, **options: object) -> tuple[FaultServer, MemoryRegistry]:
    registry = MemoryRegistry(tokens=True, **options)  # type: ignore[arg-type]
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    return server, registry


def marked(faulty: FaultyMount, secret: str, *allowed: FaultServer) -> str:
    """Mark *secret* and what Basic makes of it."""
    for user in ("ada", "", "<token>", "00000000-0000-0000-0000-000000000000"):
        faulty.secret(basic_of(user, secret), *allowed)
    return faulty.secret(secret, *allowed)


def store(faulty: FaultyMount, auths: Mapping[str, object], helpers: Mapping[str, str]) -> None:
    faulty.write_config({"auths": auths, "credHelpers": helpers})


def test_identity_tokens_and_what_helpers_say_stay_secret(faulty: FaultyMount) -> None:
    identity, registry = with_app(faulty)
    token = marked(faulty, "marked-identity-token", identity)
    newer = marked(faulty, "marked-newer-token", identity)
    granting(registry, faulty.secret("marked-access-token", identity))
    registry.refresh_tokens, registry.public = {token, newer}, False
    registry.token_fields["refresh_token"] = newer
    helped, private = with_app(faulty)
    private.users, private.public = {"ada": marked(faulty, "marked-secret-of-a-helper", helped)}, False
    ready, _registry = with_app(faulty)
    registry_token = marked(faulty, "marked-registry-token", ready)
    _registry.granted[registry_token] = {"repository:app:pull"}
    auths = {identity.address: {"identitytoken": token}, ready.address: {"registrytoken": registry_token}}
    store(faulty, auths, {helped.address: "marked"})
    environment = helper_in(faulty.home / "bin", "marked", "marked-secret-of-a-helper")
    faulty.mount_in_foreground("--timeout", "2s", environment=environment)
    for server in (identity, helped, ready):
        assert faulty.reads(faulty.path(MOTD, server=server))
    registry.revoke()
    look_around(faulty, identity)
    posts = [seen.body.decode() for seen in identity.seen if seen.method == "POST"]
    assert "marked-identity-token" in posts[0]
    assert "marked-newer-token" in posts[-1]
    assert f"Basic {basic_of('ada', 'marked-secret-of-a-helper')}" in helped.headers("authorization")
    assert f"Bearer {registry_token}" in ready.headers("authorization")
    denied = error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", 'Bearer realm="/token",error="invalid_token"')
    for server in (identity, helped, ready):
        server.on("*", "^/v2/", changed(lambda _right: denied))
        server.on("*", "^/token", reply(403))
        look_around(faulty, server)
    assert faulty.errors() != ""
    tell_all(faulty)


PROXY_FAULTS: dict[str, Action] = {
    "bad-gateway": reply(502),
    "denied": reply(407),
    "refused": reply(403, "<html>not this one</html>"),
    "closed": close,
    "reset": reset(),
    "garbage": raw(b"garbage\r\n\r\n"),
}


def test_the_password_of_a_proxy_is_for_the_proxy_alone(faulty: FaultyMount) -> None:
    registry = MemoryRegistry(tokens=True)
    faulty.push_app(server=faulty.new_server(registry))
    proxy = faulty.new_server(ProxyOf(registry))
    password = marked(faulty, "marked-password-of-a-proxy", proxy)
    own = marked(faulty, "marked-password-behind-a-proxy", proxy)
    registry.users, registry.public = {"ada": own}, False
    faulty.hosts_toml(PUBLIC, f'server = "http://{PUBLIC}"')
    known = [PUBLIC, *(f"{prefix}{what}.invalid" for what in PROXY_FAULTS for prefix in ("", "tls-"))]
    store(faulty, {host: {"auth": basic_of("ada", own)} for host in known}, {})
    url = f"http://ada:{password}@{proxy.address}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    for what in PROXY_FAULTS:
        faulty.hosts_toml(f"{what}.invalid", f'server = "http://{what}.invalid"')
    mount = faulty.mount_in_foreground("--timeout", "2s", environment=dict.fromkeys(names, url))
    assert faulty.patiently((mount.path / PUBLIC / MOTD).read_bytes)
    assert set(proxy.headers("proxy-authorization")) == {f"Basic {basic_of('ada', password)}"}

    def look(what: str, action: Action) -> None:
        proxy.on("*", rf"{what}\.invalid", action)
        for host in (f"{what}.invalid", f"tls-{what}.invalid"):
            with pytest.raises(OSError):
                (mount.path / host / MOTD).read_bytes()
            assert host in faulty.errors()

    all_at_once(look, PROXY_FAULTS)
    assert len(proxy.paths(r"CONNECT tls-[a-z-]+\.invalid:443")) >= len(PROXY_FAULTS)
    proxy.stop()
    assert faulty.patiently((mount.path / PUBLIC / MOTD).read_bytes)
    becomes(lambda: faulty.fails(mount.path / PUBLIC / "gone/1/digest", os.stat), "EHOSTUNREACH")
    tell_all(faulty)


def test_the_key_of_a_client_certificate_stays_where_it_is(faulty: FaultyMount, certificates: Certificates) -> None:
    lines = certificates.client_key.read_text().splitlines()[1:-1]
    for line in lines:
        faulty.secret(line)
    server = faulty.new_server(MemoryRegistry(), tls=tls_of(certificates, clients=True))
    faulty.push_app(server=server)
    keys = f'client = [["{certificates.client_certificate}", "{certificates.client_key}"]]'
    faulty.hosts_toml(server.address, f'server = "{server.url}"\nca = "{certificates.authority}"\n{keys}')
    faulty.mount_in_foreground("--timeout", "2s")
    assert faulty.reads(faulty.path(MOTD, server=server))
    server.on("*", ".", reply(403))
    look_around(faulty, server)
    swapped = f'client = [["{certificates.client_key}", "{certificates.client_certificate}"]]'
    faulty.hosts_toml(server.address, f'server = "{server.url}"\nca = "{certificates.authority}"\n{swapped}')
    look_around(faulty, server, "other")
    tell_all(faulty)
