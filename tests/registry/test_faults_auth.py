"""Authentication that goes wrong: F1 to F12 of the fault catalogue, at the client."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from regfs.errors import AccessDenied, RegfsError, RegistryTimeout
from regfs.model.digest import Digest
from regfs.process.waiting.deadline import Deadline, under
from regfs.registry.auth.challenge import Challenge
from regfs.registry.auth.tokens import TokenRequest, _use_s
from regfs.registry.credentials.lookup import Credential
from regfs.registry.http.trust import Tls
from tests.support.client_rig import PACE, Rig, basic, repository_of, saw_no_secret
from tests.support.fault_server import Action, Connection, FaultServer, Flood, Response, changed, reply, silence
from tests.support.memory_registry import MemoryRegistry, error

SCOPED = "/token?scope=repository:demo/app:pull"
USER = ("user", "s3cret-word")


def token_registry(*, tag: str = "v1", **more: object) -> MemoryRegistry:
    registry = MemoryRegistry(users=dict([USER]), tokens=True, **more)  # type: ignore[arg-type]
    registry.add_image("demo/app", tag)
    return registry


def bearer(server: FaultServer, extra: str = "", realm: str = "/token") -> Response:
    return error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", f'Bearer realm="{realm}",service="s"{extra}')


def always(response: Response) -> object:
    return changed(lambda _right: response)


def test_f1_401_for_ever_is_denied_after_one_token(rig: Rig) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/v2/", changed(lambda _right: bearer(server)))
    with pytest.raises(AccessDenied):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert len(server.paths("/v2/")) == 2
    assert len(server.paths("/token")) == 1


@pytest.mark.parametrize(
    "body",
    [b"{}", b"<html>login</html>", b'{"token":"' + b"x" * 10_000_000 + b'"}', b"[", b'{"token":null}', b'{"token":7}',
     b'{"token":"a b"}', b'{"token":"a\\r\\nX: y"}', b"[" * 60_000, b""],
    ids=["empty", "html", "10MB", "cut", "null", "number", "space", "newline", "deep", "nothing"],
)  # fmt: skip
def test_f2_a_token_server_without_a_token_is_a_denial(rig: Rig, body: bytes) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/token", reply(200, body))
    with pytest.raises(AccessDenied):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert server.headers("authorization", "/v2/") == [None]


def test_f2_a_token_server_that_sends_without_end_is_read_for_a_moment(rig: Rig) -> None:
    server = rig.server(token_registry())
    flood = Flood(b'HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n{"token":"')
    server.on("GET", "^/token", flood)
    with pytest.raises(AccessDenied):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert flood.sent < 32 * 1024 * 1024
    assert server.headers("authorization", "/v2/") == [None]


@pytest.mark.parametrize("expires_in", [0, -1, 1e99, "300", None, True, [], float("nan"), 10**400])
@pytest.mark.parametrize("issued_at", ["2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "yesterday", 7, None])
def test_f3_any_lifetime_gives_a_token_for_a_minute_to_a_day(expires_in: object, issued_at: object) -> None:
    fields = {"expires_in": expires_in, "issued_at": issued_at}
    assert 50 <= _use_s(fields) <= 24 * 3600


def test_f3_a_token_without_lifetime_is_fetched_once_for_several_requests(rig: Rig) -> None:
    registry = token_registry()
    registry.token_fields = {"expires_in": 0}
    server = rig.server(registry)
    client = rig.client(server, login=USER)
    for _ in range(5):
        client.listing.tags(repository_of(server))
    assert len(server.paths("/token")) == 1
    assert len(server.paths("/v2/")) == 6


def test_a_token_that_ends_is_fetched_again_before_it_does(rig: Rig) -> None:
    registry = token_registry()
    now = [0.0]
    server = rig.server(registry)
    client = rig.client(server, login=USER, clock=lambda: now[0])
    client.listing.tags(repository_of(server))
    now[0] += 280.0
    client.listing.tags(repository_of(server))
    assert len(server.paths("/token")) == 2
    assert len(server.paths("/v2/")) == 3


def test_f4_a_token_that_is_revoked_in_a_transfer_is_replaced_and_the_transfer_resumed(rig: Rig) -> None:
    registry = token_registry()
    content = bytes(range(256)) * 4000
    blob = registry.add_blob("demo/app", content)
    server = rig.server(registry)

    def cut_and_revoke(connection: Connection) -> bool:
        registry.revoke()
        response = connection.right()
        connection.send(Response(200, (("Content-Length", str(len(content))),)).head() + content[:300_000])
        return response is None

    client = rig.client(server, login=USER)
    client.listing.tags(repository_of(server))
    server.on("GET", "/blobs/", cut_and_revoke, times=1)
    assert b"".join(client.blobs.stream(repository_of(server), blob)) == content
    ranges = server.headers("range", "/blobs/")
    assert ranges[0] is None
    assert set(ranges[1:]) == {"bytes=300000-1023999"}


@pytest.mark.parametrize(
    "realm",
    [
        "file:///etc/passwd",
        "",
        "gopher://x/",
        "https://user@host/",
        "http://exa mple/",
        "https://[::1/",
        "javascript:1",
    ],
)
def test_f5_a_realm_that_is_no_web_address_is_refused(rig: Rig, realm: str) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/v2/", changed(lambda _right: bearer(server, realm=realm)))
    with pytest.raises(AccessDenied):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert saw_no_secret(server, USER[1])


@pytest.mark.parametrize(
    "realm",
    ["http://auth.example.com/token", "https://169.254.169.254/token", "https://10.0.0.1/", "https://[::1]/",
     "https://2130706433/", "https://0x7f.1/", "https://localhost/", "https://[::ffff:10.0.0.1]/"],
)  # fmt: skip
def test_f5_a_public_registry_cannot_send_a_password_over_http_or_inside(realm: str) -> None:
    challenge = Challenge("bearer", {"realm": realm})
    credential = Credential(*USER, source="a test")
    with pytest.raises(AccessDenied):
        TokenRequest.of(challenge, base="https://registry.example.com/v2", tls=Tls(), scopes=(), credential=credential)


def test_f5_a_relative_realm_and_a_realm_on_another_host_are_asked(rig: Rig) -> None:
    tokens = token_registry()
    token_server = rig.server(tokens, host="127.0.0.2")
    registry = token_registry(realm=f"{token_server.url}/token")
    registry.granted = tokens.granted
    server = rig.server(registry)
    assert rig.client(server, login=USER).listing.tags(repository_of(server)) == ["v1"]
    assert token_server.headers("authorization") == [basic(*USER)]


@pytest.mark.parametrize("realm", ["http://exa mple/", "/nothing-here", "http://127.0.0.1:1/token"])
def test_f5_a_registry_that_mends_its_challenge_opens_again(rig: Rig, realm: str) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/v2/", changed(lambda _right: bearer(server, realm=realm)))
    client = rig.client(server, login=USER)
    with pytest.raises(RegfsError):
        client.listing.tags(repository_of(server))
    server.heal()
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f5_a_denial_that_is_remembered_costs_no_request(rig: Rig) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/token", reply(403))
    client = rig.client(server, login=USER)
    for _ in range(5):
        with pytest.raises(AccessDenied):
            client.listing.tags(repository_of(server))
    assert (len(server.paths("/v2/")), len(server.paths("/token"))) == (2, 1)


def test_f6_a_redirect_of_the_token_server_carries_no_password(rig: Rig) -> None:
    tokens = token_registry()
    tokens.public = True
    elsewhere = rig.server(tokens, host="127.0.0.2")
    registry = token_registry()
    registry.granted = tokens.granted
    server = rig.server(registry)
    server.on(
        "GET", "^/token", reply(307, headers={"Location": f"{elsewhere.url}/token?scope=repository:demo/app:pull"})
    )
    assert rig.client(server, login=USER).listing.tags(repository_of(server)) == ["v1"]
    assert elsewhere.paths("/token")
    assert saw_no_secret(elsewhere, USER[1], basic(*USER).split()[1])


@pytest.mark.parametrize(
    "header",
    [
        'Negotiate, Basic realm="a, \\"b\\"", Bearer realm="/token",service="registry.test"',
        'Digest realm="x,y", nonce="z" , bearer realm=/token , Service="registry.test"',
        'Bearer realm="/token", error_description="say \\"please, Basic realm=x\\""',
    ],
)
def test_f7_the_right_challenge_is_picked_among_many(rig: Rig, header: str) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/v2/", changed(lambda _right: error(401, "X").with_header("WWW-Authenticate", header)), times=1)
    assert rig.client(server, login=USER).listing.tags(repository_of(server)) == ["v1"]


@pytest.mark.parametrize(
    "header", ["x" * 8192, '"' * 4000, "=,=,=" * 1000, 'Bearer realm="never ends', "Custom a=b", ""]
)
def test_f7_a_challenge_of_junk_is_a_denial(rig: Rig, header: str) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/v2/", changed(lambda _right: error(401, "X").with_header("WWW-Authenticate", header)))
    with pytest.raises(AccessDenied):
        rig.client(server, login=USER).listing.tags(repository_of(server))


def test_f8_insufficient_scope_is_widened_once(rig: Rig) -> None:
    server = rig.server(token_registry())
    scopes = iter(["repository:one:pull", "repository:two:pull"] * 20)

    def more(_right: Response) -> Response:
        return bearer(server, f',error="insufficient_scope",scope="{next(scopes)}"')

    client = rig.client(server, login=USER)
    client.listing.tags(repository_of(server))
    before = len(server.paths("/v2/"))
    server.on("GET", "^/v2/", changed(more))
    with pytest.raises(AccessDenied):
        client.listing.tags(repository_of(server))
    assert len(server.paths("/v2/")) - before <= 3
    assert len(server.paths("/token")) <= 3


def test_f8_a_scope_that_is_named_as_missing_is_asked_for_first(rig: Rig) -> None:
    registry = token_registry()
    server = rig.server(registry)
    client = rig.client(server, login=USER)
    client.listing.tags(repository_of(server))
    extra = ',error="insufficient_scope",scope="repository:other:pull,push"'
    server.on("GET", "^/v2/", changed(lambda _right: bearer(server, extra)), times=1)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert "scope=repository%3Aother%3Apull&scope=repository%3Ademo%2Fapp%3Apull" in server.paths("/token")[-1]


def test_f9_a_helper_that_fails_lets_a_public_pull_through(rig: Rig) -> None:
    registry = token_registry()
    registry.public = True
    server = rig.server(registry)
    client = rig.client(server)
    rig.write_config({"credHelpers": {server.address: "is-not-there"}})
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert server.headers("authorization", "/token") == [None]


def test_f10_fifty_threads_that_meet_a_401_fetch_one_token(rig: Rig) -> None:
    server = rig.server(token_registry())
    client = rig.client(server, login=USER)
    together = threading.Barrier(50)

    def list_tags(_number: int) -> list[str]:
        together.wait()
        return client.listing.tags(repository_of(server))

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(list_tags, range(50))) == [["v1"]] * 50
    assert len(server.paths("/token")) == 1


def test_f11_a_config_that_is_half_written_keeps_the_last_login(rig: Rig) -> None:
    server = rig.server(token_registry())
    client = rig.client(server, login=USER)
    client.listing.tags(repository_of(server))
    (rig.directory / ".docker" / "config.json").write_text('{"auths": {"')
    client.manifests.fetch(repository_of(server), "v1")
    server.application.revoke()  # type: ignore[attr-defined]
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_a_new_login_is_used_without_a_restart(rig: Rig) -> None:
    server = rig.server(MemoryRegistry(users={"user": "new"}))
    server.application.add_image("demo/app", "v1")  # type: ignore[attr-defined]
    client = rig.client(server, login=("user", "old"), denial_s=0.0)
    with pytest.raises(AccessDenied):
        client.listing.tags(repository_of(server))
    rig.write_logins({server.address: ("user", "new")})
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_f12_403_of_a_web_page_is_a_denial_with_its_text(rig: Rig) -> None:
    server = rig.server(token_registry())
    page = "<html><b>Blocked</b>\x1b[31m by policy</html>"
    server.on("GET", "^/v2/", reply(403, page, {"Content-Type": "text/html"}))
    with pytest.raises(AccessDenied, match=r"Blocked .* by policy") as caught:
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert "\x1b" not in str(caught.value)


def test_f12_407_is_the_proxys_refusal_and_shows_no_registry_password(rig: Rig) -> None:
    server = rig.server(token_registry())
    server.on("*", ".", reply(407, headers={"Proxy-Authenticate": "Basic", "WWW-Authenticate": "Basic"}))
    with pytest.raises(AccessDenied, match="proxy"):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert saw_no_secret(server, USER[1])


def test_basic_is_sent_in_utf8_only_after_it_was_asked_for(rig: Rig) -> None:
    login = ("robot$p+n", "пароль:with:colons")
    server = rig.server(MemoryRegistry(users=dict([login])))
    server.application.add_image("demo/app", "v1")  # type: ignore[attr-defined]
    client = rig.client(server, login=login)
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert server.headers("authorization") == [None, basic(*login), basic(*login)]


def test_basic_is_tried_once_where_the_token_server_fails_and_both_were_offered(rig: Rig) -> None:
    server = rig.server(MemoryRegistry(users=dict([USER])))
    server.application.add_image("demo/app", "v1")  # type: ignore[attr-defined]
    both = error(401, "X").with_header("WWW-Authenticate", 'Basic realm="x", Bearer realm="/no-token"')
    server.on("GET", "^/v2/", changed(lambda _right: both), times=1)
    assert rig.client(server, login=USER).listing.tags(repository_of(server)) == ["v1"]


def test_a_401_without_a_challenge_takes_that_of_the_base_url(rig: Rig) -> None:
    registry = token_registry()
    registry.public = True
    server = rig.server(registry)
    server.on("GET", "/tags/", reply(401), times=1)
    assert rig.client(server).listing.tags(repository_of(server)) == ["v1"]


def test_an_identity_token_goes_by_post_and_is_replaced_in_memory(rig: Rig) -> None:
    registry = token_registry()
    registry.refresh_tokens = {"identity", "newer"}
    registry.token_fields = {"refresh_token": "newer"}
    server = rig.server(registry)
    client = rig.client(server)
    rig.write_config({"auths": {server.address: {"identitytoken": "identity"}}})
    before = (rig.directory / ".docker" / "config.json").read_bytes()
    client.listing.tags(repository_of(server))
    registry.revoke()
    client.listing.tags(repository_of(server))
    posts = [seen.body.decode() for seen in server.seen if seen.method == "POST"]
    assert ["refresh_token=identity" in posts[0], "refresh_token=newer" in posts[1]] == [True, True]
    assert (rig.directory / ".docker" / "config.json").read_bytes() == before


@pytest.mark.parametrize("status", [400, 401, 404, 405])
def test_a_token_server_without_post_is_asked_by_get(rig: Rig, status: int) -> None:
    server = rig.server(token_registry())
    server.on("POST", "^/token", reply(status))
    client = rig.client(server)
    pair = base64.b64encode(":".join(USER).encode()).decode()
    rig.write_config({"auths": {server.address: {"auth": pair, "identitytoken": "identity"}}})
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert [path.split("?")[0] for path in server.paths("/token")] == ["POST /token", "GET /token"]


def test_a_token_is_not_used_for_another_repository(rig: Rig) -> None:
    registry = token_registry()
    registry.add_image("other/app", "v2")
    server = rig.server(registry)
    client = rig.client(server, login=USER)
    client.listing.tags(repository_of(server))
    client.listing.tags(repository_of(server, "other/app"))
    used = server.headers("authorization", "/v2/")
    assert len(server.paths("/token")) == 2
    assert used[-1] != used[1]


def test_a_registry_token_is_shown_as_it_is(rig: Rig) -> None:
    registry = token_registry()
    registry.granted["ready-made"] = {"repository:demo/app:pull"}
    server = rig.server(registry)
    client = rig.client(server)
    rig.write_config({"auths": {server.address: {"registrytoken": "ready-made"}}})
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert not server.paths("/token")


def test_no_error_message_has_a_secret(rig: Rig) -> None:
    server = rig.server(token_registry())
    server.on("GET", "^/token", reply(401, json.dumps({"details": "no such user"})))
    with pytest.raises(RegfsError) as caught:
        rig.client(server, login=USER).manifests.fetch(repository_of(server), Digest.of(b"x"))
    chain, texts = caught.value, []
    while chain is not None:
        texts.append(f"{chain!r} {chain}")
        chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]
    assert USER[1] not in " ".join(texts)
    assert basic(*USER) not in " ".join(texts)


def test_a_registry_with_a_token_server_for_each_repository_is_understood(rig: Rig) -> None:
    registry = token_registry()
    registry.public = True
    registry.add_image("other/app", "v2")
    server = rig.server(registry)
    client = rig.client(server)
    refuse = error(401, "UNAUTHORIZED")

    def demand(realm: str) -> Action:
        def bend(right: Response) -> Response:
            challenge = f'Bearer realm="{realm}",service="s"'
            return refuse.with_header("WWW-Authenticate", challenge) if right.status == 401 else right

        return changed(bend)

    server.on("GET", "/demo/", demand("/token?for=demo"))
    server.on("GET", "/other/", demand("/token?for=other"))
    server.on("GET", "^/token.*for=demo.*other", reply(200, '{"token":"useless"}'))
    for _ in range(2):
        assert client.listing.tags(repository_of(server)) == ["v1"]
        assert client.listing.tags(repository_of(server, "other/app")) == ["v2"]
    assert len(server.paths("/v2/")) == 6


def test_a_helper_is_not_run_for_every_refusal(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = token_registry()
    server = rig.server(registry)
    runs = rig.directory / "runs"
    helper = rig.directory / "docker-credential-counting"
    helper.write_text(f'#!/bin/sh\necho run >> {runs}\necho \'{{"Username":"user","Secret":"{USER[1]}"}}\'\n')
    helper.chmod(0o755)
    client = rig.client(server, environment={"PATH": f"{rig.directory}:/usr/bin:/bin"})
    rig.write_config({"credHelpers": {server.address: "counting"}})
    client.listing.tags(repository_of(server))
    server.on("GET", "/tags/", reply(403))
    for _ in range(5):
        with pytest.raises(AccessDenied):
            client.listing.tags(repository_of(server))
    assert len(runs.read_text().split()) <= 2


def test_a_thread_that_waits_for_a_token_outlasts_the_one_that_began_to_fetch_it(rig: Rig) -> None:
    server = rig.server(token_registry())
    asked = threading.Event()

    def hang(connection: Connection) -> bool:
        asked.set()
        return silence(connection)

    server.on("GET", "^/token", hang, times=1)
    client = rig.client(server, login=USER, pace=PACE._replace(answer_s=2.0))

    def hurried() -> str:
        with under(Deadline(0.5)):
            try:
                client.listing.tags(repository_of(server))
            except RegistryTimeout:
                return "gave up"
        return "listed"

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(hurried)
        asked.wait(60)
        assert client.listing.tags(repository_of(server)) == ["v1"]
        assert outcome.result(60) == "gave up"


def test_a_denial_is_raised_in_all_threads_that_wait_for_the_token(rig: Rig) -> None:
    server = rig.server(token_registry())
    client = rig.client(server, login=("user", "wrong"))
    together = threading.Barrier(10)

    def denied(_number: int) -> bool:
        together.wait()
        with pytest.raises(AccessDenied, match=r"config\.json"):
            client.listing.tags(repository_of(server))
        return True

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(denied, range(10)))
    assert len(server.paths("/token")) == 1
