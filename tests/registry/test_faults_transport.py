"""Redirects, connections and TLS that go wrong: F13 to F24 of the fault catalogue, at the client."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from regfs.errors import (
    AccessDenied,
    BadConfiguration,
    BadContent,
    Interrupted,
    Offline,
    ProtocolViolation,
    RegfsError,
    RegistryTimeout,
    RegistryUnavailable,
    WouldBlock,
)
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
from regfs.registry.client import RegistryClient
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.messages import Origin, Request
from regfs.registry.http.redirects import redirected, resolved
from regfs.registry.http.sockets import Pace
from regfs.registry.http.trust import Tls
from regfs.waiting.deadline import NON_BLOCKING, Deadline, under
from tests.support.client_rig import (
    ALONE,
    IMPATIENT,
    LESS_IMPATIENT,
    PACE,
    RETRY,
    Rig,
    basic,
    client_of,
    repository_of,
    saw_no_secret,
)
from tests.support.fault_server import (
    Connection,
    FaultServer,
    Flood,
    Response,
    changed,
    close,
    drip,
    raw,
    reply,
    reset,
    silence,
)
from tests.support.memory_registry import MemoryRegistry, blob_response
from tests.support.registry import Certificates, make_certificates

USER = ("user", "s3cret-word")
CONTENT = bytes(range(256)) * 1000
TAGS = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"tags":["v1"]}'


class Storage:
    """The object store that a registry redirects to: it refuses requests with credentials, as S3 does."""

    def respond(self, seen: object) -> Response:
        headers = seen.headers  # type: ignore[attr-defined]
        if "authorization" in headers:
            return Response(400, body=b"Only one auth mechanism allowed")
        return blob_response(CONTENT, "sha256:" + hashlib.sha256(CONTENT).hexdigest(), headers.get("range"))


STRANGER = Credentials({"HOME": "/nonexistent"})


def registry(**more: object) -> MemoryRegistry:
    made = MemoryRegistry(**more)  # type: ignore[arg-type]
    made.add_image("demo/app", "v1")
    return made


def with_blob(rig: Rig, **more: object) -> tuple[FaultServer, Descriptor]:
    application = registry(**more)
    return rig.server(application), application.add_blob("demo/app", CONTENT)


def fetched(client: RegistryClient, server: FaultServer, blob: Descriptor) -> bytes:
    return b"".join(client.blobs.stream(repository_of(server), blob))


def test_f13_a_redirect_to_another_host_carries_no_authorization(rig: Rig) -> None:
    storage = rig.server(Storage(), host="127.0.0.2")
    server, blob = with_blob(rig, users=dict([USER]))
    location = f"{storage.url}/signed/%7Ea/../b%2f?X-Signature=a%2Bb"
    server.on("GET", "/blobs/", changed(lambda right: _redirect_if_ok(right, location)))
    client = rig.client(server, login=USER, options='[header]\nX-Api-Key = "custom-secret"')
    assert fetched(client, server, blob) == CONTENT
    assert saw_no_secret(storage, USER[1], basic(*USER), "custom-secret", "X-Api-Key".lower())
    assert storage.paths() == ["GET /signed/%7Ea/../b%2f?X-Signature=a%2Bb"]
    assert set(server.headers("x-api-key")) == {"custom-secret"}


def _redirect_if_ok(right: Response, location: str) -> Response:
    cookie = (("Location", location), ("Set-Cookie", "session=cookie-secret; Path=/"))
    return Response(307, cookie) if right.status in (200, 206) else right


def test_f13_cookies_are_never_sent(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", changed(lambda right: right.with_header("Set-Cookie", "a=b; Path=/")))
    client = rig.client(server)
    client.listing.tags(repository_of(server))
    client.listing.tags(repository_of(server))
    assert saw_no_secret(server)


def test_f13_netrc_is_not_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = rig.directory / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password s3cret")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server, _blob = with_blob(rig)
    rig.client(server).listing.tags(repository_of(server))
    assert saw_no_secret(server)


def test_f14_the_same_host_with_another_port_gets_no_credentials(rig: Rig) -> None:
    storage = rig.server(Storage())
    server, blob = with_blob(rig, users=dict([USER]))
    server.on("GET", "/blobs/", changed(lambda right: _redirect_if_ok(right, f"{storage.url}/b")))
    assert fetched(rig.client(server, login=USER), server, blob) == CONTENT
    assert saw_no_secret(storage, USER[1])


@pytest.mark.parametrize(
    "location",
    ["http://registry.example.com/", "http://cdn.example.com/x", "https://127.0.0.1/", "https://10.1.2.3/x",
     "https://[::1]:8443/", "https://169.254.169.254/latest/", "https://localhost/x", "https://[fe80::1]/",
     "https://3232235777/", "https://user:pw@cdn.example.com/"],
)  # fmt: skip
def test_f14_a_public_registry_redirects_neither_to_http_nor_inside(location: str) -> None:
    request = Request("GET", "https://registry.example.com/v2/a/blobs/b", headers={"Authorization": "Bearer x"})
    with pytest.raises(ProtocolViolation):
        redirected(request, location, first=request.origin)


def test_a_redirect_on_the_same_origin_keeps_authorization_until_another_host_was_visited() -> None:
    tls = Tls(ca_files=("/ca.crt",))
    request = Request("GET", "https://a.example/v2/", headers={"Authorization": "x", "Range": "bytes=0-1"}, tls=tls)
    first = Origin.of(request.url)
    same = redirected(request, "/v2/other", first=first)
    away = redirected(same, "https://b.example/", first=first)
    back = redirected(away, "https://a.example/v2/", first=first)
    assert [dict(one.headers) for one in (same, away, back)] == [
        {"Authorization": "x", "Range": "bytes=0-1"},
        {"Range": "bytes=0-1"},
        {"Range": "bytes=0-1"},
    ]
    assert (same.tls, away.tls) == (tls, Tls())


# A storage checks a signature over exactly these bytes (requests#6711, urllib3#3081).
TARGETS = {
    "a key that begins with a slash": "//store/key?sig=1",
    "escapes in lower case": "/store/k%2fey?sig=a%2bb%3d",
    "an escape that is none": "/store/%zz?sig=%",
    "brackets and bars": "/store/[key]|{1}?p=[1]|2&q={}^`\\",
    "an empty query": "/store/key?",
    "two question marks": "/store/key??a?",
    "dots": "/a/../store/./key?sig=1",
    "escaped letters": "/store/%7Ekey%41",
    "no path": "?sig=1",
    "UTF-8": "/store/caf\xc3\xa9?name=caf\xc3\xa0",
    "Latin-1": "/store/caf\xe9?name=\xa0\x85",
    "parameters": "/store/key;a=1;b?c;d",
    "like an address": "/http://127.0.0.1/key?u=http://user@127.0.0.1/#",
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_target_of_a_redirect_arrives_byte_for_byte(rig: Rig, target: str) -> None:
    server, blob = with_blob(rig)
    storage = rig.server(host="127.0.0.2")
    server.on("GET", "/blobs/", reply(307, headers={"Location": storage.url + target}))
    storage.on("GET", ".", reply(200, CONTENT))
    assert fetched(rig.client(server), server, blob) == CONTENT
    sent = target.partition("#")[0]
    assert storage.seen[-1].path == (sent if sent.startswith("/") else f"/{sent}")
    assert storage.headers("host")[-1] == storage.address


@pytest.mark.parametrize("target", [target for target in TARGETS.values() if re.match("/[^/]", target)])
def test_so_does_one_on_the_same_host(rig: Rig, target: str) -> None:
    server, blob = with_blob(rig)
    server.on("GET", "/v2/.*/blobs/", reply(307, headers={"Location": target}))
    server.on("GET", ".", reply(200, CONTENT))
    assert fetched(rig.client(server), server, blob) == CONTENT
    assert server.seen[-1].path == target.partition("#")[0]


def test_the_target_of_a_redirect_arrives_byte_for_byte_through_a_proxy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, blob = with_blob(rig)
    proxy = rig.server()
    monkeypatch.setenv("http_proxy", proxy.url)
    location = "http://storage.test//k%2b/[x]|?"
    server.on("GET", "/blobs/", reply(307, headers={"Location": location}))
    proxy.on("GET", ".", reply(200, CONTENT))
    assert fetched(rig.client(server), server, blob) == CONTENT
    assert proxy.paths() == [f"GET {location}"]
    assert proxy.headers("host") == ["storage.test"]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("../x/./y?z/../k", "https://r.test/v2/app/x/y?z/../k"),
        ("other?", "https://r.test/v2/app/blobs/other?"),
        ("?", "https://r.test/v2/app/blobs/1?"),
        ("#part", "https://r.test/v2/app/blobs/1?a=b"),
        ("//s.test:8443/k", "https://s.test:8443/k"),
        ("HTTPS://S.test/k#part", "https://S.test/k"),
    ],
)
def test_a_relative_redirect_is_merged_with_where_it_came_from(location: str, url: str) -> None:
    assert resolved("https://r.test/v2/app/blobs/1?a=b", location) == url


@pytest.mark.parametrize(
    "location",
    [
        "/v2/again",
        None,
        "",
        "http://",
        "file:///etc/passwd",
        "/" + "x" * 70_000,
        "/a b",
        "/a\tb",
        "/a\x7fb",
        "http:/a",
        "https://127.0.0.1\\@127.0.0.2/",
        "https://user@127.0.0.1/",
        "https://127.0.0.1:99999/",
        "https://caf\xe9/",
        "//",
        "https://[/",
        "#",
    ],
)
def test_f15_a_redirect_that_leads_nowhere_ends(rig: Rig, location: str | None) -> None:
    server, blob = with_blob(rig)
    headers = {} if location is None else {"Location": location}
    server.on("GET", "/v2/", reply(307, headers=headers))
    with pytest.raises(BadContent):
        fetched(rig.client(server), server, blob)
    assert len(server.paths()) <= 11


def test_f15_ten_redirects_are_followed_and_eleven_are_not(rig: Rig) -> None:
    server, blob = with_blob(rig)
    server.on("GET", "/blobs/|/hop", reply(307, headers={"Location": "/hop"}), times=9)
    server.on("GET", "/hop", reply(200, CONTENT), after=0)
    with pytest.raises(ProtocolViolation, match="10 times"):
        _loop(rig, server, blob)


def _loop(rig: Rig, server: FaultServer, blob: Descriptor) -> None:
    looping = rig.server()
    numbers = iter(range(100))
    looping.on("GET", ".", changed(lambda _right: Response(302, (("Location", f"/{next(numbers)}"),))))
    assert fetched(rig.client(server), server, blob) == CONTENT
    fetched(rig.client(looping), looping, blob)


def test_f16_the_body_of_a_redirect_is_not_read(rig: Rig) -> None:
    server, blob = with_blob(rig)
    flood = Flood(b"HTTP/1.1 307 Go\r\nLocation: /moved\r\nContent-Length: 99999999999\r\n\r\n")
    server.on("GET", "/blobs/", flood)
    server.on("GET", "/moved", reply(200, CONTENT))
    assert fetched(rig.client(server), server, blob) == CONTENT
    assert flood.sent < 32 * 1024 * 1024


def test_f17_a_kept_connection_that_is_reset_is_replaced_silently(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    client = rig.client(server, retry=type(RETRY)(attempts=1))
    client.listing.tags(repository_of(server))
    server.on("GET", "/tags/", reset(), times=1)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert rig.stats.value("registry.retries") == 0


def test_connections_are_kept(rig: Rig) -> None:
    server, blob = with_blob(rig)
    client = rig.client(server)
    for start in range(0, 50_000, 10_000):
        client.listing.tags(repository_of(server))
        client.manifests.resolve(repository_of(server), "v1")
        client.blobs.range(repository_of(server), blob, start, start + 5000)
    fetched(client, server, blob)
    assert server.connections == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HANGING = {
    "silence": silence,
    "header drip": drip(b"HTTP/1.1 200 OK\r\n" + b"X-Header: yes\r\n" * 1000),
    "endless headers": drip(b"HTTP/1.1 200 OK\r\nX-Header: " + b"y" * 10000),
    "body drip": drip(HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000),
    "chunk drip": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1000),
}


@pytest.mark.parametrize("action", HANGING.values(), ids=HANGING)
def test_f18_a_registry_that_hangs_is_given_up(rig: Rig, action: object) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", action)  # type: ignore[arg-type]
    with pytest.raises(RegistryTimeout):
        rig.client(server, pace=IMPATIENT).listing.tags(repository_of(server))


@pytest.mark.parametrize("action", HANGING.values(), ids=HANGING)
def test_f18_the_callers_deadline_ends_a_wait_of_any_kind(rig: Rig, action: object) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", action)  # type: ignore[arg-type]
    with under(Deadline(0.3)), pytest.raises(RegistryTimeout):
        rig.client(server, pace=Pace()).listing.tags(repository_of(server))


def test_f18_a_deadline_does_not_let_others_take_the_host_for_dead(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", silence, times=1)
    client = rig.client(server)
    with under(Deadline(0.2)), pytest.raises(RegistryTimeout):
        client.listing.tags(repository_of(server))
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f18_a_stalled_tls_greeting_and_a_full_backlog_are_given_up(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        rig.hosts_toml(address, f'server = "https://{address}"')
        client = client_of(
            Hosts(hosts_directories=[rig.directory / "hosts"]),
            STRANGER,
            rig.stats,
            pace=IMPATIENT,
            retry=RETRY,
        )
        with pytest.raises(RegistryTimeout):
            client.listing.tags(RepositoryName(address, "demo/app"))


def test_f18_a_body_that_stops_in_the_middle_of_a_blob_is_resumed(rig: Rig) -> None:
    server, blob = with_blob(rig)

    def stall(connection: Connection) -> bool:
        response = connection.right()
        connection.send(response.head() + response.body[:100_000])
        return silence(connection)

    server.on("GET", "/blobs/", stall, times=1)
    assert fetched(rig.client(server, pace=LESS_IMPATIENT), server, blob) == CONTENT
    # Each of them once, and more often where a busy machine has answered late.
    assert set(server.headers("range", "/blobs/")) == {None, "bytes=100000-255999"}


def test_interruption_ends_a_read_that_waits(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    deadline = Deadline(60)

    def interrupt(connection: Connection) -> bool:
        deadline.cancel()
        return silence(connection)

    server.on("GET", "/tags/", interrupt)
    with under(deadline), pytest.raises(Interrupted):
        rig.client(server).listing.tags(repository_of(server))


def test_a_thread_that_may_not_wait_sends_nothing(rig: Rig) -> None:
    server, blob = with_blob(rig)
    client = rig.client(server, login=USER)
    with under(NON_BLOCKING):
        with pytest.raises(WouldBlock):
            client.manifests.resolve(repository_of(server), "v1")
        with pytest.raises(WouldBlock):
            fetched(client, server, blob)
    assert server.connections == 0


def test_offline_sends_nothing(rig: Rig) -> None:
    server, blob = with_blob(rig)
    client = rig.client(server, offline=True)
    with pytest.raises(Offline, match="--offline"):
        client.listing.tags(repository_of(server))
    with pytest.raises(Offline):
        fetched(client, server, blob)
    assert server.connections == 0


GARBAGE = {
    "150 headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 150 + b"\r\n",
    "70 KB header": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "status line": b"HTTP/1.1 twohundred OK\r\n\r\n",
    "other protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "zeros": bytes(1000),
    "number": b"HTTP/1.1 99999 OK\r\n\r\n",
    "version": b"ICY 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_f19_an_answer_that_is_not_http_is_no_answer(rig: Rig, content: bytes) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", raw(content))
    with pytest.raises(BadContent):
        rig.client(server).listing.tags(repository_of(server))


LENGTHS = {
    "twice": "Content-Length: 5\r\nContent-Length: 9\r\n",
    "list": "Content-Length: 5, 9\r\n",
    "negative": "Content-Length: -7\r\n",
    "word": "Content-Length: abc\r\n",
    "chunked too": "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
    "underscore": "Content-Length: 1_5\r\n",
    "arabic digits": "Content-Length: \xd9\xa3\r\n",
    "plus": "Content-Length: +15\r\n",
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_f20_a_content_length_without_sense_is_refused(rig: Rig, length: str) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", raw(b"HTTP/1.1 200 OK\r\n" + length.encode("latin-1") + b'\r\n{"tags":["v1"]}'))
    with pytest.raises(BadContent):
        rig.client(server).listing.tags(repository_of(server))


def test_f21_bytes_after_a_body_are_not_the_next_answer(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    poison = TAGS.replace(b"v1", b"xx")

    def answer_twice(connection: Connection) -> bool:
        connection.send(TAGS + poison)
        return True

    server.on("GET", "/tags/", answer_twice, times=1)
    client = rig.client(server)
    assert [client.listing.tags(repository_of(server)) for _ in range(3)] == [["v1"]] * 3


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


def test_f22_an_expired_certificate_is_not_trusted(rig: Rig, certificates: Certificates, tmp_path: Path) -> None:
    expired = _expired(certificates, tmp_path)
    server = rig.server(registry(), tls=tls_of(expired))
    with pytest.raises(ProtocolViolation, match="expired"):
        rig.client(server, login=USER, options=trusting(certificates)).listing.tags(repository_of(server))
    assert (server.connections, server.paths()) == (1, [])


def _expired(certificates: Certificates, directory: Path) -> Certificates:
    """Return a server certificate of the same authority that ended long ago."""
    (directory / "index.txt").touch()
    (directory / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={directory}/index.txt\nnew_certs_dir={directory}\ndefault_md=sha256\n"
        f"policy=p\nrand_serial=yes\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n"
    )
    authority = certificates.authority
    made = directory / "expired.crt"
    subprocess.run(
        ["openssl", "ca", "-batch", "-config", directory / "ca.cnf", "-cert", authority, "-keyfile",
         authority.with_name("ca.key"), "-in", authority.with_name("server.csr"), "-out", made, "-notext",
         "-startdate", "20200101000000Z", "-enddate", "20200201000000Z"],
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


def loopback_client(rig: Rig) -> RegistryClient:
    """Return a client that knows nothing but what loopback is."""
    return client_of(Hosts(), Credentials({"HOME": str(rig.directory)}), rig.stats, retry=RETRY, pace=PACE)


def test_loopback_is_asked_by_http_where_it_speaks_no_tls_and_before_any_secret_is_sent(rig: Rig) -> None:
    server = rig.server(registry(users=dict([USER])))
    rig.write_logins({server.address: USER})
    client = loopback_client(rig)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert server.headers("authorization") == [None, basic(*USER), basic(*USER)]


def test_loopback_with_tls_is_never_asked_by_http(rig: Rig, certificates: Certificates) -> None:
    server = rig.server(registry(), tls=tls_of(certificates))
    with pytest.raises(ProtocolViolation, match="not trusted"):
        loopback_client(rig).listing.tags(repository_of(server))
    assert server.paths() == []


def test_loopback_where_nothing_listens_is_unavailable_and_may_come_back(rig: Rig) -> None:
    server = rig.server(registry(), host=ALONE)
    server.stop()
    now = [0.0]
    client = client_of(Hosts(), STRANGER, rig.stats, retry=RETRY, pace=PACE, clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="refused"):
            client.listing.tags(repository_of(server))
    now[0] = 100.0
    rig.server(server.application, host=ALONE, port=int(server.address.rpartition(":")[2]))
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_loopback_that_is_back_is_asked_at_once_when_its_failures_are_forgotten(rig: Rig) -> None:
    server = rig.server(registry(), host=ALONE)
    server.stop()
    client = client_of(Hosts(), STRANGER, rig.stats, retry=RETRY, pace=PACE, clock=lambda: 0.0)
    with pytest.raises(RegistryUnavailable, match="refused"):
        client.listing.tags(repository_of(server))
    rig.server(server.application, host=ALONE, port=int(server.address.rpartition(":")[2]))
    client.forget_failures()
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f23_a_name_that_cannot_be_resolved_is_unavailable_and_asked_again_later(rig: Rig) -> None:
    repository = RepositoryName("no-such-registry.invalid", "demo/app")
    client = loopback_client(rig)
    with pytest.raises(RegistryUnavailable, match="cannot be resolved"):
        client.listing.tags(repository)
    with pytest.raises(RegistryUnavailable, match=r"failed \d+ s ago; next attempt in \d+ s"):
        client.listing.tags(repository)
    assert rig.stats.value("registry.retries") == 0


def test_f23_a_refused_connection_is_unavailable_at_once(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.stop()
    with pytest.raises(RegistryUnavailable, match="refused"):
        rig.client(server).listing.tags(repository_of(server))
    assert rig.stats.value("registry.retries") == 0


@pytest.mark.parametrize("status", [103, 201, 202, 203, 204, 205, 299, 304, 999, 600])
@pytest.mark.parametrize("what", ["tags", "manifests", "blobs"])
def test_f24_a_success_of_another_kind_is_none(rig: Rig, status: int, what: str) -> None:
    server, blob = with_blob(rig)
    server.on("*", f"/{what}/", reply(status))
    client = rig.client(server)
    calls = {
        "tags": lambda: client.listing.tags(repository_of(server)),
        "manifests": lambda: client.manifests.fetch(repository_of(server), "v1"),
        "blobs": lambda: fetched(client, server, blob),
    }
    with pytest.raises((BadContent, RegistryUnavailable)):
        calls[what]()


def test_f24_100_continue_before_an_answer_is_skipped(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", raw(b"HTTP/1.1 100 Continue\r\n\r\n" + TAGS))
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]


def test_a_connection_that_is_closed_before_any_answer_is_tried_again(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    server.on("GET", "/tags/", close, times=2)
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]


def test_a_host_gets_no_more_requests_at_once_than_it_has_slots(rig: Rig) -> None:
    server, _blob = with_blob(rig)
    lock, present, most, eight = threading.Lock(), [0], [0], threading.Barrier(8)

    def counted(connection: Connection) -> bool:
        with lock:
            present[0] += 1
            most[0] = max(most[0], present[0])
        eight.wait(60)  # all eight slots are in use at once, or this breaks
        with lock:
            present[0] -= 1
        return connection.answer(connection.right())

    server.on("GET", "/tags/", counted)
    client = rig.client(server)
    threads = [threading.Thread(target=client.listing.tags, args=(repository_of(server),)) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 8


def test_a_proxy_of_the_environment_is_not_used_for_loopback(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = rig.server()
    monkeypatch.setenv("http_proxy", proxy.url)
    server, _blob = with_blob(rig)
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]
    assert proxy.paths() == []


def test_a_proxy_of_the_environment_is_asked_for_all_else(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = rig.server()
    proxy.on("GET", "registry.invalid", raw(TAGS))
    monkeypatch.setenv("http_proxy", proxy.url)
    rig.hosts_toml("registry.invalid", 'server = "http://registry.invalid"')
    client = client_of(
        Hosts(hosts_directories=[rig.directory / "hosts"]),
        STRANGER,
        rig.stats,
        retry=RETRY,
    )
    assert client.listing.tags(RepositoryName("registry.invalid", "demo/app")) == ["v1"]
    assert proxy.paths() == ["GET http://registry.invalid/v2/demo/app/tags/list"]


def test_a_proxy_that_wants_credentials_is_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = rig.server()
    proxy.on("CONNECT", ".", reply(407))
    monkeypatch.setenv("https_proxy", proxy.url)
    client = client_of(Hosts(), STRANGER, rig.stats, retry=RETRY)
    with pytest.raises(AccessDenied, match="https_proxy"):
        client.listing.tags(RepositoryName("registry.invalid", "demo/app"))
