"""Certificates that go wrong: F22 of the fault catalogue, at the client."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from regfs.errors import (
    BadConfiguration,
    ProtocolViolation,
    RegfsError,
)
from regfs.registry.hosts.endpoints import Hosts
from tests.registry.transport_rig import (
    CONTENT,
    STRANGER,
    USER,
    Storage,
    fetched,
    loopback_client,
    registry,
)
from tests.support.client_rig import (
    PACE,
    RETRY,
    Rig,
    client_of,
    repository_of,
)
from tests.support.fault_server import (
    reply,
)
from tests.support.registry import Certificates, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def tls_of(certificates: Certificates, *, clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.authority)
    return context


def trusting(certificates: Certificates, *, client: bool = False) -> str:
    pair = f'client = [["{certificates.client_certificate}", "{certificates.client_key}"]]' if client else ""
    return f'ca = "{certificates.authority}"\n{pair}'


def test_tls_with_an_authority_of_its_own_and_a_client_certificate_works(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), tls=tls_of(certificates, clients=True))
    client = rig.client(server, options=trusting(certificates, client=True))
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert server.connections == 1


@pytest.mark.filterwarnings("error")
def test_a_certificate_that_the_user_does_without_is_not_checked(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), host="127.0.0.2", tls=tls_of(certificates))
    rig.hosts_toml(server.address, f'[host."{server.url}"]\nskip_verify = true\n')
    client = client_of(
        Hosts(hosts_directories=[rig.directory / "hosts"]),
        STRANGER,
        rig.stats,
        retry=RETRY,
        pace=PACE,
    )
    assert client.listing.tags(repository_of(server)) == ["v1"]
    insecure = client_of(Hosts(insecure=[server.address]), STRANGER, rig.stats, retry=RETRY, pace=PACE)
    assert insecure.listing.tags(repository_of(server)) == ["v1"]


@pytest.mark.parametrize("content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
@pytest.mark.parametrize("what", ["ca", "client"])
def test_a_certificate_file_that_is_none_is_told_by_its_name(
    rig: Rig, certificates: Certificates, tmp_path: Path, what: str, content: bytes
) -> None:
    broken = tmp_path / "broken.crt"
    broken.write_bytes(content)
    server = rig.server(registry(), tls=tls_of(certificates))
    good = trusting(certificates) if what == "client" else ""
    client = rig.client(server, options=f'{good}\n{what} = "{broken}"')
    with pytest.raises(BadConfiguration, match=f"{broken}.* cannot be used for TLS"):
        client.listing.tags(repository_of(server))
    assert server.connections == 0
    broken.write_bytes(certificates.authority.read_bytes())
    if what == "ca":
        assert client.listing.tags(repository_of(server)) == ["v1"]


def test_a_certificate_that_is_renewed_on_disk_is_used_without_a_remount(
    rig: Rig, certificates: Certificates, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    old = tmp_path / "old"
    old.mkdir()
    authority.write_bytes(make_certificates(old).authority.read_bytes())
    server = rig.server(registry(), tls=tls_of(certificates))
    client = rig.client(server, options=f'ca = "{authority}"')
    with pytest.raises(ProtocolViolation, match="not trusted"):
        client.listing.tags(repository_of(server))
    authority.write_bytes(certificates.authority.read_bytes())
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f22_an_unknown_authority_is_not_trusted(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), tls=tls_of(certificates))
    with pytest.raises(ProtocolViolation, match="certificate is not trusted"):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert (server.connections, server.paths()) == (1, [])


def test_f22_a_certificate_for_another_host_is_not_trusted(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), host="127.0.0.2", tls=tls_of(certificates))
    with pytest.raises(ProtocolViolation, match="not trusted"):
        rig.client(server, login=USER, options=trusting(certificates)).listing.tags(repository_of(server))
    assert (server.connections, server.paths()) == (1, [])


@pytest.mark.parametrize(("year", "reason"), [(2020, "has expired"), (2120, "not yet valid")])
def test_f22_a_certificate_of_another_time_is_not_trusted_and_the_clock_is_named(
    rig: Rig, certificates: Certificates, tmp_path: Path, year: int, reason: str
) -> None:
    """The advice was to trust another authority, or none; most often it is the clock that is wrong."""
    server = rig.server(registry(), tls=tls_of(_of_another_time(certificates, tmp_path, year=year)))
    with pytest.raises(ProtocolViolation, match=rf"{reason}; the clock of this machine says 20[0-9-]*T[0-9:]*Z: if"):
        rig.client(server, login=USER, options=trusting(certificates)).listing.tags(repository_of(server))
    assert (server.connections, server.paths()) == (1, [])


def _of_another_time(certificates: Certificates, directory: Path, *, year: int) -> Certificates:
    """Return a server certificate of the same authority that is valid in January of *year*."""
    (directory / "index.txt").touch()
    (directory / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={directory}/index.txt\nnew_certs_dir={directory}\ndefault_md=sha256\n"
        f"policy=p\nrand_serial=yes\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n"
    )
    authority = certificates.authority
    made = directory / "other.crt"
    subprocess.run(
        ["openssl", "ca", "-batch", "-config", directory / "ca.cnf", "-cert", authority, "-keyfile",
         authority.with_name("ca.key"), "-in", authority.with_name("server.csr"), "-out", made, "-notext",
         "-startdate", f"{year}0101000000Z", "-enddate", f"{year}0201000000Z"],
        check=True, capture_output=True,
    )  # fmt: skip
    return Certificates(authority, made, certificates.server_key, made, certificates.server_key)


def test_f22_a_registry_that_demands_a_client_certificate_is_an_error(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), tls=tls_of(certificates, clients=True))
    with pytest.raises(RegfsError, match=r"client certificate|closed"):
        rig.client(server, options=trusting(certificates)).listing.tags(repository_of(server))
    assert server.paths() == []


def test_f22_what_a_registry_is_trusted_with_is_not_for_the_host_it_redirects_to(
    rig: Rig, certificates: Certificates
) -> None:
    storage = rig.server(Storage(), tls=tls_of(certificates))
    application = registry()
    blob = application.add_blob("demo/app", CONTENT)
    server = rig.server(application, tls=tls_of(certificates))
    server.on("GET", "/blobs/", reply(307, headers={"Location": f"{storage.url}/b"}))
    with pytest.raises(ProtocolViolation, match="not trusted"):
        fetched(rig.client(server, options=trusting(certificates)), server, blob)
    assert storage.paths() == []


def test_loopback_with_tls_is_never_asked_by_http(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), tls=tls_of(certificates))
    with pytest.raises(ProtocolViolation, match="not trusted"):
        loopback_client(rig).listing.tags(repository_of(server))
    assert server.paths() == []
