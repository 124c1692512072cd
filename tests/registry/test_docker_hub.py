"""Docker Hub's own listing: pages, its cap for anonymous requests, and no credentials."""

from __future__ import annotations

import json

import pytest

from regfs.errors import BadContent, NotFound, Offline, RegistryUnavailable
from regfs.registry.client import RegistryClient
from regfs.registry.docker_hub import HubRepositories
from tests.support.client_rig import Rig, saw_no_secret
from tests.support.fault_server import Action, FaultServer, reply


def page(names: list[object], following: str | None = None) -> Action:
    return reply(200, json.dumps({"count": 1, "next": following, "results": [{"name": name} for name in names]}))


def hub(rig: Rig, *actions: Action) -> tuple[FaultServer, RegistryClient]:
    """Return a server that gives *actions* one after the other, and a client that takes it for Docker Hub."""
    server = rig.server()
    for action in actions:
        server.on("GET", "^/v2/namespaces/grafana/repositories", action, times=1)
    return server, rig.client(rig.server(), hub_url=server.url, logins={server.address: ("user", "s3cret")})


def test_all_pages_of_a_namespace_are_listed_without_credentials(rig: Rig) -> None:
    following = "https://hub.docker.com/v2/namespaces/grafana/repositories?page=2&page_size=100"
    server, client = hub(rig, page(["loki", "grafana"], following), page(["tempo", "loki"]))
    assert client.hub.namespace("grafana") == HubRepositories(
        ("grafana/grafana", "grafana/loki", "grafana/tempo"), True
    )
    assert server.paths() == [
        "GET /v2/namespaces/grafana/repositories?page_size=100",
        "GET /v2/namespaces/grafana/repositories?page=2&page_size=100",
    ]
    assert saw_no_secret(server, "s3cret")


def test_the_cap_for_anonymous_requests_makes_the_list_incomplete_and_says_so(rig: Rig) -> None:
    following = "/v2/namespaces/grafana/repositories?page=2"
    _server, client = hub(rig, page(["loki"], following), reply(403, '{"message":"log in to see more"}'))
    assert client.hub.namespace("grafana") == HubRepositories(("grafana/loki",), False)


def test_names_that_are_none_are_left_out(rig: Rig) -> None:
    _server, client = hub(rig, page(["ok", "../x", "UPPER", None, 7, "a/b", ""]))
    assert client.hub.namespace("grafana").repositories == ("grafana/ok",)


@pytest.mark.parametrize("namespace", ["../x", "UPPER", "a/b", "a?b", ""])
def test_a_namespace_that_cannot_exist_is_not_asked_for(rig: Rig, namespace: str) -> None:
    server, client = hub(rig)
    assert client.hub.namespace(namespace) == HubRepositories((), True)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (reply(404), NotFound),
        (reply(200, "<html>"), BadContent),
        (reply(200, '{"results":"x"}'), BadContent),
        (reply(200, "[]"), BadContent),
        (page(["a"], "/v2/namespaces/grafana/repositories?page_size=100"), BadContent),
    ],
)
def test_an_answer_without_a_list_is_an_error(rig: Rig, action: Action, kind: type[Exception]) -> None:
    _server, client = hub(rig, action)
    with pytest.raises(kind):
        client.hub.namespace("grafana")


def test_a_hub_that_is_down_is_unavailable(rig: Rig) -> None:
    server, client = hub(rig)
    server.on("GET", ".", reply(503))
    with pytest.raises(RegistryUnavailable):
        client.hub.namespace("grafana")


def test_offline_sends_no_request(rig: Rig) -> None:
    server = rig.server()
    with pytest.raises(Offline):
        rig.client(rig.server(), hub_url=server.url, offline=True).hub.namespace("grafana")
    assert server.connections == 0
