"""What was good and is over: tokens, and secrets of helpers, that a registry or its token server refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regfs.errors import AccessDenied, ProtocolViolation
from regfs.model.names import RepositoryName
from regfs.registry.client import RegistryClient
from tests.support.client_rig import Rig, basic, repository_of
from tests.support.fault_server import Action, Connection, FaultServer, changed, reply
from tests.support.memory_registry import MemoryRegistry, error

USER = ("user", "s3cret-word")


def registry_of(*, tokens: bool, users: dict[str, str] | None = None) -> MemoryRegistry:
    registry = MemoryRegistry(users=users or dict([USER]), tokens=tokens)
    registry.add_image("demo/app", "v1")
    return registry


def instead_of_401(status: int) -> Action:
    """Answer *status* where a request has an Authorization that is not good, as ECR Public does."""
    refused = error(status, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")

    def act(connection: Connection) -> bool:
        right = connection.right()
        is_stale = right.status == 401 and "authorization" in connection.seen.headers
        return connection.answer(refused if is_stale else right)

    return act


class Helper:
    """A credential helper that prints the secret in a file, and counts its runs."""

    def __init__(self, directory: Path) -> None:
        self._runs, self._secret = directory / "runs", directory / "secret"
        self.environment = {"PATH": f"{directory}:/usr/bin:/bin"}
        program = directory / "docker-credential-case"
        program.write_text(
            f"#!/bin/sh\necho run >> {self._runs}\n"
            f'printf \'{{"Username":"user","Secret":"%s"}}\' "$(cat {self._secret})"\n'
        )
        program.chmod(0o755)

    def gives(self, secret: str) -> None:
        self._secret.write_text(secret)

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().split())


def with_helper(rig: Rig, server: FaultServer, **options: object) -> tuple[Helper, RegistryClient]:
    """Return a helper that gives `S1`, and a client that asks it for *server*'s credential."""
    helper = Helper(rig.directory)
    helper.gives("S1")
    client = rig.client(server, environment=helper.environment, **options)  # type: ignore[arg-type]
    rig.write_config({"credHelpers": {server.address: "case"}})
    return helper, client


# Tokens.


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("login", [USER, None], ids=["login", "anonymous"])
def test_a_token_that_the_registry_forgot_is_replaced_whatever_it_answers(
    rig: Rig, status: int, login: tuple[str, str] | None
) -> None:
    registry = registry_of(tokens=True)
    registry.public = login is None
    server = rig.server(registry)
    server.on("*", "^/v2/", instead_of_401(status))
    client = rig.client(server, login=login)
    client.listing.tags(repository_of(server))
    registry.revoke()
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert len(server.paths("/token")) == 2


@pytest.mark.parametrize("status", [400, 403])
def test_a_request_that_is_really_bad_is_not_sent_twice_each_time(rig: Rig, status: int) -> None:
    now = [0.0]
    server = rig.server(registry_of(tokens=True))
    client = rig.client(server, login=USER, clock=lambda: now[0])
    client.listing.tags(repository_of(server))
    server.on("*", "/tags/", reply(status))
    for _ in range(5):
        with pytest.raises(ProtocolViolation if status == 400 else AccessDenied):
            client.listing.tags(repository_of(server))
    assert len(server.paths("/tags/")) == 1 + 2 + 4
    assert len(server.paths("/token")) == 2
    now[0] += 31.0
    server.heal()
    server.application.revoke()  # type: ignore[attr-defined]
    server.on("*", "^/v2/", instead_of_401(status))
    assert client.listing.tags(repository_of(server)) == ["v1"]


@pytest.mark.parametrize("status", [400, 403])
def test_a_token_that_was_fetched_for_this_request_is_not_replaced(rig: Rig, status: int) -> None:
    server = rig.server(registry_of(tokens=True))
    server.on("*", "/tags/", reply(status))
    with pytest.raises(ProtocolViolation if status == 400 else AccessDenied):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert (len(server.paths("/tags/")), len(server.paths("/token"))) == (1, 1)


@pytest.mark.parametrize("status", [400, 403])
def test_a_bad_request_without_any_authorization_is_sent_once(rig: Rig, status: int) -> None:
    server = rig.server(registry_of(tokens=True))
    server.on("*", "/tags/", reply(status))
    with pytest.raises(ProtocolViolation if status == 400 else AccessDenied):
        rig.client(server).listing.tags(repository_of(server))
    assert server.paths() == ["GET /v2/demo/app/tags/list"]


def test_a_refresh_token_that_is_over_gives_way_to_the_users_own(rig: Rig) -> None:
    registry = registry_of(tokens=True)
    registry.refresh_tokens = {"identity"}
    registry.token_fields = {"refresh_token": "short-lived"}
    server = rig.server(registry)
    client = rig.client(server)
    rig.write_config({"auths": {server.address: {"identitytoken": "identity"}}})
    client.listing.tags(repository_of(server))
    registry.revoke()
    assert client.listing.tags(repository_of(server)) == ["v1"]
    posts = [seen.body.decode() for seen in server.seen if seen.method == "POST"]
    assert ["short-lived" in post for post in posts] == [False, True, False]


# Secrets of helpers.


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("refusing", ["registry", "token server"])
def test_a_helper_whose_secret_has_expired_is_run_again(rig: Rig, refusing: str, status: int) -> None:
    registry = registry_of(tokens=refusing == "token server", users={"user": "S1"})
    server = rig.server(registry)
    server.on("*", "^/token" if refusing == "token server" else "^/v2/", instead_of_401(status))
    helper, client = with_helper(rig, server)
    client.listing.tags(repository_of(server))
    registry.users = {"user": "S2"}
    registry.revoke()
    helper.gives("S2")
    assert client.listing.tags(repository_of(server)) == ["v1"]
    assert helper.runs == 2


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_helper_that_gives_the_same_again_is_denied_and_not_remembered_for_long(rig: Rig, status: int) -> None:
    registry = registry_of(tokens=True, users={"user": "S2"})
    server = rig.server(registry)
    server.on("*", "^/token", instead_of_401(status))
    now = [0.0]
    helper, client = with_helper(rig, server, clock=lambda: now[0], denial_s=5.0)
    for _ in range(3):
        with pytest.raises(AccessDenied, match=r"token server .* refuses the credentials from docker-credential-case"):
            client.listing.tags(repository_of(server))
    assert (helper.runs, len(server.paths("/token"))) == (2, 1)
    assert server.headers("authorization", "/token") == [basic("user", "S1")]


def test_a_new_login_of_a_helper_opens_what_its_old_one_did_not(rig: Rig) -> None:
    registry = registry_of(tokens=True, users={"user": "S2"})
    server = rig.server(registry)
    now = [0.0]
    helper, client = with_helper(rig, server, clock=lambda: now[0])
    with pytest.raises(AccessDenied):
        client.listing.tags(repository_of(server))
    helper.gives("S2")
    (rig.directory / ".docker" / "config.json").write_text(json.dumps({"credHelpers": {server.address: "case"}}) + " ")
    assert client.listing.tags(repository_of(server)) == ["v1"]


def test_a_secret_that_is_over_is_asked_for_under_the_name_of_the_host(rig: Rig) -> None:
    registry = registry_of(tokens=False, users={"user": "S1"})
    server = rig.server(registry)
    helper, client = with_helper(rig, server)
    rig.hosts_toml("registry.example", f'server = "{server.url}"')
    repository = RepositoryName("registry.example", "demo/app")
    client.listing.tags(repository)
    registry.users = {"user": "S2"}
    helper.gives("S2")
    assert client.listing.tags(repository) == ["v1"]


def test_basic_that_is_refused_with_400_and_comes_from_a_file_is_sent_once(rig: Rig) -> None:
    server = rig.server(registry_of(tokens=False))
    server.on("*", "/tags/", changed(lambda _right: error(400, "DENIED")))
    with pytest.raises(ProtocolViolation):
        rig.client(server, login=USER).listing.tags(repository_of(server))
    assert len(server.paths("/tags/")) == 1
