"""Lists and change: F46 and F61 to F68 of the fault catalogue, at the client."""

from __future__ import annotations

import json
import threading

import pytest

from regfs.errors import (
    AccessDenied,
    BadContent,
    NotFound,
    ProtocolViolation,
    RegfsError,
    RegistryUnavailable,
    TooLarge,
    Unsupported,
)
from regfs.model.digest import Digest
from regfs.registry import listing
from tests.support.client_rig import RETRY, Rig, repository_of, saw_no_secret
from tests.support.fault_server import Action, FaultServer, Flood, Response, changed, cut, reply, reset
from tests.support.memory_registry import INDEX, MANIFEST, MemoryRegistry, error

USER = ("user", "s3cret-word")
TAGS = [f"v{number}" for number in range(10)]


def serving(rig: Rig, *, page_size: int = 3, **more: object) -> FaultServer:
    application = MemoryRegistry(page_size=page_size, **more)  # type: ignore[arg-type]
    for tag in TAGS:
        application.add_image("demo/app", tag)
    return rig.server(application)


def tags(rig: Rig, server: FaultServer, **more: object) -> list[str]:
    return rig.client(server, **more).listing.tags(repository_of(server))  # type: ignore[arg-type]


def with_link(link: str | None) -> Action:
    return changed(lambda right: right.with_header("Link", link))


def page(tags: object, link: str | None = None) -> Action:
    headers = {"Content-Type": "application/json"} | ({"Link": link} if link is not None else {})
    return reply(200, json.dumps({"name": "demo/app", "tags": tags}), headers)


def test_all_pages_are_read(rig: Rig) -> None:
    server = serving(rig)
    assert tags(rig, server) == TAGS
    assert server.paths()[:2] == ["GET /v2/demo/app/tags/list", "GET /v2/demo/app/tags/list?last=v2"]


def test_f61_pages_that_go_round_in_circles_end(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", page(["a"], '</v2/demo/app/tags/list?last=a>; rel="next"'))
    with pytest.raises(ProtocolViolation, match="circles"):
        tags(rig, server)
    assert len(server.paths()) == 2


def test_f61_a_circle_with_new_names_for_its_pages_ends(rig: Rig) -> None:
    server = serving(rig)
    numbers = iter(range(10**6))

    def endless(_right: Response) -> Response:
        link = f'</v2/demo/app/tags/list?page={next(numbers)}>; rel="next"'
        return Response(200, (("Link", link),), b'{"tags":["a"]}')

    server.on("GET", "/tags/", changed(endless))
    with pytest.raises(ProtocolViolation, match="repeat"):
        tags(rig, server)
    assert len(server.paths()) < 20


def test_f61_a_list_without_end_is_too_large(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_ENTRIES", 1000)
    server = serving(rig)
    numbers = iter(range(10**6))

    def endless(_right: Response) -> Response:
        number = next(numbers)
        link = f'</v2/demo/app/tags/list?page={number}>; rel="next"'
        names = [f"t{number}-{one}" for one in range(100)]
        return Response(200, (("Link", link),), json.dumps({"tags": names}).encode())

    server.on("GET", "/tags/", changed(endless))
    with pytest.raises(TooLarge):
        tags(rig, server)


@pytest.mark.parametrize("scheme_and_host", ["http://127.0.0.2:1", "https://evil.example.com", "//evil.example.com:99"])
def test_f61_a_link_to_another_host_is_followed_on_our_own(rig: Rig, scheme_and_host: str) -> None:
    server = serving(rig, users=dict([USER]))
    link = f'<{scheme_and_host}/v2/demo/app/tags/list?last=v2>; rel="next"'
    server.on("GET", "list$", changed(lambda right: right.with_header("Link", link) if right.status == 200 else right))
    assert tags(rig, server, login=USER) == TAGS


@pytest.mark.parametrize("target", ["javascript:alert(1)", "file:///etc/passwd", "", "http://[", "/%zz", "/x" * 9000])
def test_f61_a_link_that_leads_nowhere_is_an_error_not_the_end(rig: Rig, target: str) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", page(["a"], f'<{target}>; rel="next"'))
    with pytest.raises(ProtocolViolation) as caught:
        tags(rig, server)
    assert server.address in str(caught.value)


def test_f61_a_link_cannot_lead_out_by_its_path(rig: Rig) -> None:
    elsewhere = rig.server()
    server = serving(rig, users=dict([USER]))
    link = f'<{server.url}//{elsewhere.address}/v2/x>; rel="next"'
    server.on("GET", "/tags/", changed(lambda right: right.with_header("Link", link) if right.status == 200 else right))
    with pytest.raises(RegfsError):
        tags(rig, server, login=USER)
    assert elsewhere.connections == 0


DIALECTS = {
    "unquoted": "</v2/demo/app/tags/list?last=v2>; rel=next",
    "upper case": '</v2/demo/app/tags/list?last=v2>; REL="NEXT"',
    "several": '</other>; rel="prev", </v2/demo/app/tags/list?last=v2>; rel="next"; title="a, b"',
    "parameters first": '</v2/demo/app/tags/list?last=v2>; title="x; rel=prev"; rel="next last"',
    "relative": '<list?last=v2>; rel="next"',
    "query alone": '<?last=v2>; rel="next"',
    "no space": '</v2/demo/app/tags/list?last=v2>;rel="next"',
    "comma in target": '</v2/demo/app/tags/list?last=v2&x=1,2>; rel="next"',
}


@pytest.mark.parametrize("link", DIALECTS.values(), ids=DIALECTS)
def test_f61_every_dialect_of_links_is_understood(rig: Rig, link: str) -> None:
    server = serving(rig)
    server.on("GET", "list$", with_link(link))
    assert tags(rig, server) == TAGS


def test_f62_pages_that_overlap_repeat_or_have_their_own_size_make_one_list(rig: Rig) -> None:
    server = serving(rig)
    links = [f'</v2/demo/app/tags/list?p={number}>; rel="next"' for number in range(1, 5)]
    contents: tuple[list[str], ...] = (["a", "b"], ["b", "c"], ["b", "c"], [], ["d"])
    for content, link in zip(contents, [*links, None], strict=True):
        server.on("GET", "/tags/", page(content, link), times=1)
        server.on("GET", "/tags/never", page([]))
    assert tags(rig, server) == ["a", "b", "c", "d"]


def test_f62_no_page_size_is_asked_for(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "[?&]n=", error_400())
    assert tags(rig, server) == TAGS


def error_400() -> Action:
    return changed(lambda _right: error(400, "PAGINATION_NUMBER_INVALID"))


@pytest.mark.parametrize(
    ("found", "valid"),
    [
        (None, []),
        ([], []),
        (["b", "a", "b"], ["a", "b"]),
        ([None, "v1", 7, {"a": 1}, ["x"], "", "v2"], ["v1", "v2"]),
        (["sha256:" + "a" * 64, "../x", "a/b", "a" * 129, ".hidden", "-x", "v1\n", "v\u0661", "ok", "a\x00b"], ["ok"]),
        (["v1", "sha256-" + "a" * 64 + ".sig"], ["sha256-" + "a" * 64 + ".sig", "v1"]),
        (["\ud800", "x" * 10_000, "ok"], ["ok"]),
    ],
)
def test_f63_f46_valid_tags_are_listed_whatever_stands_beside_them(rig: Rig, found: object, valid: list[str]) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", page(found))
    assert tags(rig, server) == valid


def test_f63_a_list_without_the_key_is_empty(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", reply(200, '{"name":"demo/app"}'))
    assert tags(rig, server) == []


@pytest.mark.parametrize(
    "body",
    ['{"tags":"v1"}', '{"tags":{"v1":1}}', "[]", "null", '"v1"', "7", "", "{", "[" * 100_000, '{"tags":["\xff"]}'],
)
def test_f63_a_list_that_is_none_is_an_error_not_empty(rig: Rig, body: str) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", reply(200, body.encode("latin-1")))
    with pytest.raises(BadContent):
        tags(rig, server)


def test_f63_a_page_of_any_size_is_bounded(rig: Rig) -> None:
    server = serving(rig)
    flood = Flood(b"HTTP/1.1 200 OK\r\n\r\n")
    server.on("GET", "/tags/", flood)
    with pytest.raises(TooLarge):
        tags(rig, server)


def test_f64_a_page_that_fails_fails_the_list(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "last=v5", reply(500))
    with pytest.raises(RegistryUnavailable):
        tags(rig, server)


@pytest.mark.parametrize("action", [reply(500), reset(), cut(3)], ids=["500", "reset", "cut"])
def test_f64_a_page_that_fails_once_does_not(rig: Rig, action: Action) -> None:
    server = serving(rig)
    server.on("GET", "last=v5", action, times=1)
    assert tags(rig, server) == TAGS


def test_f64_a_page_whose_tag_was_deleted_makes_us_start_again_once(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "last=v5", reply(404), times=1)
    assert tags(rig, server) == TAGS
    server.on("GET", "last=v5", reply(404))
    with pytest.raises(ProtocolViolation):
        tags(rig, server)


def test_f64_a_token_that_ends_between_pages_is_renewed(rig: Rig) -> None:
    server = serving(rig, users=dict([USER]), tokens=True)

    def revoked(right: Response) -> Response:
        server.application.revoke()  # type: ignore[attr-defined]
        return right

    server.on("GET", "last=v2", changed(revoked), times=1)
    assert tags(rig, server, login=USER) == TAGS
    assert len(server.paths("/token")) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AccessDenied), (403, AccessDenied), (404, NotFound), (405, Unsupported), (501, Unsupported)],
)
def test_f65_a_catalog_that_is_refused_is_an_error_of_its_kind_and_the_rest_works(
    rig: Rig, status: int, kind: type[RegfsError]
) -> None:
    server = serving(rig)
    server.on("GET", "_catalog", reply(status))
    client = rig.client(server)
    with pytest.raises(kind):
        client.listing.repositories(server.address)
    assert client.listing.tags(repository_of(server)) == TAGS


def test_f65_an_empty_catalog_is_empty(rig: Rig) -> None:
    server = rig.server(MemoryRegistry())
    assert rig.client(server).listing.repositories(server.address) == []


def test_a_catalog_is_read_with_its_own_scope_and_only_valid_names_count(rig: Rig) -> None:
    server = serving(rig, users=dict([USER]), tokens=True, page_size=2)
    application = server.application
    for name in ("a", "b/c", "z__z/y"):
        application.repository(name)  # type: ignore[attr-defined]
    application.repositories.update({"../etc": None, "UPPER": None, "": None})  # type: ignore[attr-defined]
    assert rig.client(server, login=USER).listing.repositories(server.address) == ["a", "b/c", "demo/app", "z__z/y"]
    assert "scope=registry%3Acatalog%3A%2A" in server.paths("/token")[0]


def test_f66_a_tag_that_is_deleted_is_not_found_and_its_manifest_stays(rig: Rig) -> None:
    server = serving(rig)
    client, repository = rig.client(server), repository_of(server)
    descriptor = client.manifests.resolve(repository, "v1")
    del server.application.repository("demo/app").tags["v1"]  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        client.manifests.resolve(repository, "v1")
    assert client.manifests.fetch(repository, descriptor.digest).digest == descriptor.digest


def test_f67_a_tag_with_two_truths_gives_one_at_a_time(rig: Rig) -> None:
    server = serving(rig)
    application = server.application
    other = application.add_image("demo/app", "other", b"another layer")  # type: ignore[attr-defined]
    turns = iter([str(other), application.repository("demo/app").tags["v1"]] * 10)  # type: ignore[attr-defined]
    lock = threading.Lock()

    def flip(right: Response) -> Response:
        with lock:
            application.repository("demo/app").tags["v1"] = next(turns)  # type: ignore[attr-defined]
        return right

    server.on("HEAD", "/manifests/v1", changed(flip))
    client, repository = rig.client(server), repository_of(server)
    seen = set()
    for _ in range(4):
        descriptor = client.manifests.resolve(repository, "v1")
        document = client.manifests.fetch(repository, descriptor.digest)
        assert descriptor.digest.matches(document.content)
        seen.add(descriptor.digest)
    assert len(seen) == 2


def referrer(name: str) -> dict[str, object]:
    content = name.encode()
    return {"mediaType": MANIFEST, "digest": str(Digest.of(content)), "size": len(content), "artifactType": f"a/{name}"}


def with_referrers(rig: Rig) -> tuple[FaultServer, Digest]:
    """Return a registry whose referrers API lists "api", and whose fall-back tag lists "tag"."""
    server = serving(rig)
    application = server.application
    digest = application.add_image("demo/app", "signed", b"signed layer")  # type: ignore[attr-defined]
    application.repository("demo/app").referrers[str(digest)] = [referrer("api")]  # type: ignore[attr-defined]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer("tag")]}
    application.add_manifest(  # type: ignore[attr-defined]
        "demo/app", json.dumps(index).encode(), tag=f"sha256-{digest.encoded}", media_type=INDEX
    )
    return server, digest


def kinds(rig: Rig, server: FaultServer, digest: Digest) -> list[str | None]:
    return [one.artifact_type for one in rig.client(server).referrers.of(repository_of(server), digest)]


def test_referrers_come_from_the_api_where_there_is_one(rig: Rig) -> None:
    server, digest = with_referrers(rig)
    assert kinds(rig, server, digest) == ["a/api"]
    assert len(server.paths()) == 1


@pytest.mark.parametrize("said", ["application/json", "text/plain", "", "application/octet-stream"])
def test_referrers_are_read_whatever_the_api_calls_their_list(rig: Rig, said: str) -> None:
    server, digest = with_referrers(rig)
    server.on("GET", "/referrers/", changed(lambda right: right.with_header("Content-Type", said or None)))
    assert kinds(rig, server, digest) == ["a/api"]
    assert len(server.paths()) == 1


def test_referrers_of_all_pages_are_read(rig: Rig) -> None:
    server, digest = with_referrers(rig)
    second = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer("more"), referrer("api")]})
    server.on("GET", "page=2", reply(200, second, {"Content-Type": INDEX}))
    server.on("GET", "/referrers/", with_link(f'</v2/demo/app/referrers/{digest}?page=2>; rel="next"'))
    assert kinds(rig, server, digest) == ["a/api", "a/more"]


NO_API = {
    "404": reply(404),
    "400": reply(400, '{"errors":[{"code":"UNSUPPORTED"}]}'),
    "401": reply(401),
    "405": reply(405),
    "406": reply(406),
    "web page": reply(200, "<html>", {"Content-Type": "text/html"}),
    "false 200": reply(200, "{}", {"Content-Type": "application/json"}),
}


@pytest.mark.parametrize("action", NO_API.values(), ids=NO_API)
def test_f68_a_registry_without_the_api_is_asked_for_the_tag_and_remembered(rig: Rig, action: Action) -> None:
    server, digest = with_referrers(rig)
    server.on("GET", "/referrers/", action)
    client, repository = rig.client(server), repository_of(server)
    for _ in range(2):
        assert [one.artifact_type for one in client.referrers.of(repository, digest)] == ["a/tag"]
    assert len(server.paths("/referrers/")) == 1


def test_f68_a_redirect_to_a_web_page_is_no_api(rig: Rig) -> None:
    web = rig.server(host="127.0.0.2")
    web.on("GET", ".", reply(429, "please do not"))
    server, digest = with_referrers(rig)
    server.on("GET", "/referrers/", reply(303, headers={"Location": f"{web.url}/web"}))
    assert kinds(rig, server, digest) == ["a/tag"]
    assert saw_no_secret(web)


def test_f68_no_tag_means_no_referrers(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "/referrers/", reply(404))
    assert kinds(rig, server, Digest.of(b"lonely")) == []


@pytest.mark.parametrize("status", [500, 502, 503])
def test_f68_a_server_error_is_an_error_not_nothing(rig: Rig, status: int) -> None:
    server, digest = with_referrers(rig)
    server.on("GET", "/referrers/", reply(status))
    with pytest.raises(RegistryUnavailable):
        kinds(rig, server, digest)
    assert len(server.paths()) == RETRY.attempts


def test_f68_a_repository_that_is_not_there_is_not_found(rig: Rig) -> None:
    server, digest = with_referrers(rig)
    with pytest.raises(NotFound):
        rig.client(server).referrers.of(repository_of(server, "demo/none"), digest)
