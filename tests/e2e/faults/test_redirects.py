"""Redirects that lead astray, seen by the user of a mount: F13, F14 and F5 of the fault catalogue."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.faults.conftest import MOTD, by_itself
from tests.support.fault_server import FaultServer, changed, reply
from tests.support.faulty_mount import FaultyMount
from tests.support.memory_registry import MemoryRegistry, error
from tests.support.proxied import PUBLIC, ProxyOf
from tests.support.registry import Certificates
from tests.support.served_tls import tls_of
from tests.support.storage import Storage, to_storage

PRIVATE = ["https://127.0.0.1/", "https://10.1.2.3/x", "https://[::1]:8443/", "https://169.254.169.254/latest/",
           "https://localhost/x", "https://[fe80::1]/", "https://3232235777/", "http://127.0.0.1/"]  # fmt: skip


def with_app(faulty: FaultyMount) -> tuple[FaultServer, MemoryRegistry]:
    """Return a registry with app:1, and what answers for it."""
    registry = MemoryRegistry()
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    return server, registry


def config_of(registry: MemoryRegistry) -> str:
    """Return the digest of the config of app:1."""
    return next(digest for digest, blob in registry.repositories["app"].blobs.items() if blob.startswith(b"{"))


def behind_a_proxy(faulty: FaultyMount) -> tuple[FaultServer, dict[str, str], MemoryRegistry]:
    """Return a proxy that knows the registry PUBLIC with app:1, the environment that names it, and the registry."""
    registry = MemoryRegistry()
    server = faulty.new_server(registry)
    faulty.push_app(server=server)
    proxy = faulty.new_server(ProxyOf(registry))
    faulty.hosts_toml(PUBLIC, f'server = "http://{PUBLIC}"')
    return proxy, {"http_proxy": proxy.url, "https_proxy": proxy.url}, registry


def test_f13_a_redirect_to_another_host_carries_no_credentials_cookies_or_headers(faulty: FaultyMount) -> None:
    server, registry = with_app(faulty)
    registry.users = dict([faulty.log_in(server=server)])
    header = faulty.secret("marked-header", server)
    faulty.secret("marked-cookie")
    faulty.hosts_toml(server.address, f'server = "{server.url}"\n[header]\nX-Api-Key = "{header}"')
    storage = faulty.other_server(Storage(registry))
    signature = faulty.secret("marked-signature", storage)
    server.on("GET", "/blobs/", to_storage(storage, f"?X-Signature={signature}%2B"))
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert len(storage.paths("GET /signed/sha256:.*X-Signature=marked-signature%2B")) == 2  # a config and a layer
    assert set(server.headers("x-api-key")) == {header}


@by_itself
def test_f13_neither_cookies_nor_netrc_are_used(faulty: FaultyMount) -> None:
    netrc = faulty.home / ".netrc"
    netrc.parent.mkdir(parents=True)
    netrc.write_text(f"machine 127.0.0.1 login thief password {faulty.secret('marked-netrc')}\n")
    netrc.chmod(0o600)
    server = faulty.other_server(host="127.0.0.1")
    faulty.push_app(server=server)
    server.on("*", "/v2/", changed(lambda right: right.with_header("Set-Cookie", "a=b; Path=/")))
    faulty.mount(environment={"NETRC": str(netrc)})
    assert faulty.reads(faulty.path(MOTD, server=server))
    assert os.listdir(faulty.path("app", server=server)) == ["1"]


def test_f14_a_registry_with_tls_does_not_redirect_to_plain_http(
    faulty: FaultyMount, certificates: Certificates
) -> None:
    registry = MemoryRegistry()
    server = faulty.new_server(registry, tls=tls_of(certificates))
    faulty.hosts_toml(server.address, f'server = "{server.url}"\nca = "{certificates.authority}"')
    faulty.push_app(server=server)
    storage = faulty.other_server(Storage(registry))
    server.on("GET", "/blobs/", to_storage(storage))
    assert faulty.fails(faulty.path(MOTD, server=server), Path.read_bytes) == "EIO"
    assert storage.connections == 0
    assert "redirect" in faulty.errors()
    server.heal()
    faulty.recovers(faulty.path(MOTD, server=server))


@by_itself
def test_f14_a_public_registry_does_not_redirect_inside(faulty: FaultyMount) -> None:
    proxy, environment, registry = behind_a_proxy(faulty)
    config = config_of(registry)
    path = faulty.mount(environment=environment).path / PUBLIC / "app/1/config.json"
    for number, location in enumerate(PRIVATE, 1):
        proxy.on("GET", "/blobs/", reply(307, headers={"Location": location}))
        assert (location, faulty.fails(path, Path.read_bytes)) == (location, "EIO")
        proxy.heal()
        assert len(proxy.paths("GET .*/blobs/")) == number
    assert proxy.paths(f"^(?!(GET|HEAD) http://{PUBLIC}/)") == []
    assert path.read_bytes() == registry.repositories["app"].blobs[config]


@by_itself
def test_f5_a_public_registry_has_no_token_server_inside(faulty: FaultyMount) -> None:
    proxy, environment, _registry = behind_a_proxy(faulty)
    faulty.write_config({"auths": {PUBLIC: {"auth": faulty.secret("YWRhOm1hcmtlZC1wYXNzd29yZA==")}}})
    path = faulty.mount(environment=environment).path / PUBLIC / MOTD
    for realm in PRIVATE[:-1]:
        challenge = error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", f'Bearer realm="{realm}"')
        proxy.on("*", ".", changed(lambda _right, challenge=challenge: challenge))  # type: ignore[misc]
        assert (realm, faulty.fails(path, Path.read_bytes)) == (realm, "EACCES")
        proxy.heal()
    assert proxy.paths(f"^(?!(GET|HEAD) http://{PUBLIC}/)") == []
    assert set(proxy.headers("authorization")) == {None}
    assert path.read_bytes()
