"""The root of the API: asked first where there is a credential to offer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from regfs.errors import AccessDenied, NotFound, RegistryUnavailable
from regfs.model.names import RepositoryName
from tests.support.client_rig import PACE, Rig, basic, repository_of, saw_no_secret
from tests.support.fault_server import Action, Response, Seen, changed, close, raw, reply, silence
from tests.support.memory_registry import MemoryRegistry, error

USER = ("user", "s3cret-word")
ROOT = "^/v2/$"


class Hiding(MemoryRegistry):
    """Challenges at the root alone: without a login everything else is 404, and the catalog has what is public."""

    def _refused(self, seen: Seen, name: str, kind: str) -> Response | None:
        refused = super()._refused(seen, name, kind)
        if refused is None or (not name and kind != "_catalog"):
            return refused
        return error(404, "NAME_UNKNOWN") if name else Response(200, (), b'{"repositories":["public/tool"]}')


def registry_of(kind: type[MemoryRegistry], *, tokens: bool) -> MemoryRegistry:
    registry = kind(users=dict([USER]), tokens=tokens)
    registry.add_image("demo/app", "v1")
    registry.add_image("public/tool", "v1")
    return registry


@pytest.mark.parametrize("tokens", [False, True], ids=["basic", "bearer"])
def test_a_registry_that_says_404_to_anonymous_requests_opens_with_a_login(rig: Rig, tokens: bool) -> None:
    server = rig.server(registry_of(Hiding, tokens=tokens))
    client = rig.client(server, login=USER)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert client.manifests.resolve(repository_of(server), "v1").size > 0
    assert server.paths(" /v2/$") == ["GET /v2/"]
    assert None not in server.headers("authorization", "/v2/demo")


@pytest.mark.parametrize("tokens", [False, True], ids=["basic", "bearer"])
def test_a_registry_that_lists_less_to_anonymous_requests_lists_all_with_a_login(rig: Rig, tokens: bool) -> None:
    server = rig.server(registry_of(Hiding, tokens=tokens))
    assert rig.client(server).listing.repositories(server.address) == ["public/tool"]
    assert rig.client(server, login=USER).listing.repositories(server.address) == ["demo/app", "public/tool"]


@pytest.mark.parametrize("kind", [MemoryRegistry, Hiding])
def test_without_a_login_the_root_is_not_asked(rig: Rig, kind: type[MemoryRegistry]) -> None:
    registry = registry_of(kind, tokens=True)
    registry.public = True
    server = rig.server(registry)
    client = rig.client(server, login=None, logins={"registry.example.com": USER})
    for _ in range(3):
        try:
            client.listing.tags(repository_of(server))
        except NotFound:
            pass
    assert server.paths(" /v2/$") == []
    assert len(server.paths("/tags/")) == (3 if kind is Hiding else 4)


def test_fifty_threads_with_a_login_ask_the_root_once(rig: Rig) -> None:
    server = rig.server(registry_of(Hiding, tokens=False))
    client = rig.client(server, login=USER)
    together = threading.Barrier(50)

    def list_tags(_number: int) -> list[str]:
        together.wait()
        return client.listing.tags(repository_of(server))

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(list_tags, range(50))) == [["v1"]] * 50
    assert server.paths(" /v2/$") == ["GET /v2/"]


BROKEN_ROOTS: dict[str, Action] = {
    "404": reply(404),
    "200": reply(200, b"{}"),
    "403": reply(403),
    "500": reply(500),
    "429": reply(429, headers={"Retry-After": "1000"}),
    "redirect": reply(301, headers={"Location": "https://elsewhere.example/v2/"}),
    "close": close,
    "garbage": raw(b"garbage\r\n\r\n"),
    "junk challenge": reply(401, headers={"WWW-Authenticate": "Negotiate"}),
    "no challenge": reply(401),
}


@pytest.mark.parametrize("action", BROKEN_ROOTS.values(), ids=BROKEN_ROOTS)
@pytest.mark.parametrize("tokens", [False, True], ids=["basic", "bearer"])
def test_a_root_that_says_nothing_useful_keeps_nothing_closed(rig: Rig, action: Action, tokens: bool) -> None:
    server = rig.server(registry_of(MemoryRegistry, tokens=tokens))
    server.on("*", ROOT, action)
    client = rig.client(server, login=USER)
    for _ in range(2):
        assert client.listing.tags(repository_of(server)) == ["v1"]
    assert len(server.paths(" /v2/$")) == 1
    assert len(server.paths("/tags/")) == 3


@pytest.mark.parametrize("action", [reply(500), close, reply(503)], ids=["500", "close", "503"])
def test_a_404_to_an_anonymous_request_is_no_enoent_while_the_root_is_down(rig: Rig, action: Action) -> None:
    now = [0.0]
    server = rig.server(registry_of(Hiding, tokens=False))
    server.on("*", ROOT, action, times=1)
    client = rig.client(server, login=USER, clock=lambda: now[0])
    with pytest.raises(RegistryUnavailable, match=r"404 to an anonymous request.*config\.json.*cannot be sent"):
        client.listing.tags(repository_of(server))
    now[0] += 6.0
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_a_root_that_hangs_is_waited_for_once_a_minute(rig: Rig) -> None:
    now = [0.0]
    server = rig.server(registry_of(MemoryRegistry, tokens=False))
    server.application.users = None  # type: ignore[attr-defined]
    server.on("*", ROOT, silence)
    client = rig.client(server, login=USER, pace=PACE._replace(dispensable_s=0.5), clock=lambda: now[0])
    for _ in range(3):
        assert client.listing.tags(repository_of(server)) == ["v1"]
        now[0] += 25.0
    assert len(server.paths(" /v2/$")) == 1
    client.listing.tags(repository_of(server))
    assert len(server.paths(" /v2/$")) == 2


def test_a_challenge_is_a_hint_that_ends(rig: Rig) -> None:
    now = [0.0]
    server = rig.server(registry_of(Hiding, tokens=False))
    client = rig.client(server, login=USER, clock=lambda: now[0])
    client.listing.tags(repository_of(server))
    server.application.tokens = True  # type: ignore[attr-defined]
    now[0] += 3601.0
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert server.paths(" /v2/$") == ["GET /v2/"] * 2


def test_the_root_is_asked_without_credentials_and_a_mirror_gets_its_own_login(rig: Rig) -> None:
    server = rig.server(registry_of(Hiding, tokens=False), host="127.0.0.2")
    mirror = rig.server(registry_of(Hiding, tokens=False))
    client = rig.client(server, login=USER, mirrors=[mirror])
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert saw_no_secret(mirror, USER[1], basic(*USER))
    assert mirror.paths(" /v2/$") == []
    assert server.headers("authorization", " /v2/$") == [None]


def test_a_host_in_the_place_of_a_registry_does_not_get_the_registrys_login(rig: Rig) -> None:
    server = rig.server(registry_of(MemoryRegistry, tokens=False))
    client = rig.client(server, logins={"registry.example": USER})
    rig.hosts_toml("registry.example", f'server = "{server.url}"')
    repository = RepositoryName("registry.example", "demo/app")
    with pytest.raises(AccessDenied, match=f"docker login {server.address}"):
        client.listing.tags(repository)
    assert saw_no_secret(server, USER[1], basic(*USER))
    rig.write_logins({server.address: USER})
    assert client.listing.tags(repository) == ["v1"]


def test_a_mirror_below_a_path_is_asked_for_its_challenge_at_the_root(rig: Rig) -> None:
    server, mirror = rig.server(), rig.server(registry_of(Hiding, tokens=False))
    client = rig.client(server, logins={mirror.address: USER})
    rig.hosts_toml(server.address, f'server = "{server.url}"\n[host."{mirror.url}/v2/demo"]\noverride_path = true')
    assert client.listing.tags(repository_of(server, "app")) == ["v1"]
    assert mirror.paths()[0] == "GET /v2/"


def test_the_target_of_a_redirect_sees_no_login(rig: Rig) -> None:
    registry = registry_of(Hiding, tokens=False)
    blob = registry.add_blob("demo/app", b"content")
    server, storage = rig.server(registry), rig.server(host="127.0.0.2")
    storage.on("GET", ".", reply(200, b"content"))
    server.on("GET", "/blobs/", reply(307, headers={"Location": f"{storage.url}/x"}))
    assert b"".join(rig.client(server, login=USER).blobs.stream(repository_of(server), blob)) == b"content"
    assert storage.paths() == ["GET /x"]
    assert saw_no_secret(storage, USER[1], basic(*USER))


def test_a_scope_of_another_name_is_asked_for_though_the_first_request_had_a_token(rig: Rig) -> None:
    server = rig.server(registry_of(MemoryRegistry, tokens=True))
    other = error(401, "UNAUTHORIZED").with_header(
        "WWW-Authenticate", 'Bearer realm="/token",service="registry.test",scope="repository:hub/demo/app:pull,push"'
    )
    server.on("GET", "/tags/", changed(lambda _right: other), times=1)
    assert rig.client(server, login=USER).listing.tags(repository_of(server)) == ["v1"]
    assert "scope=repository%3Ahub%2Fdemo%2Fapp%3Apull&" in server.paths("/token")[-1]
