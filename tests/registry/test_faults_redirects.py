"""Redirects that go wrong: F13 to F16 of the fault catalogue, at the client."""

from __future__ import annotations

import re

import pytest

from regfs.errors import (
    BadContent,
    ProtocolViolation,
)
from regfs.model.manifest import Descriptor
from regfs.registry.http.messages import Origin, Request
from regfs.registry.http.redirects import redirected, resolved
from regfs.registry.http.trust import Tls
from tests.registry.transport_rig import (
    CONTENT,
    USER,
    Storage,
    fetched,
    with_blob,
)
from tests.support.client_rig import (
    Rig,
    basic,
    repository_of,
    saw_no_secret,
)
from tests.support.fault_server import (
    FaultServer,
    Flood,
    Response,
    changed,
    reply,
)


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
