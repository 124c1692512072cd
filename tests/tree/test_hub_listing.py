"""Docker Hub's namespaces, listed by its API for those who opted in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import AccessDenied
from tests.support.fault_server import FaultServer, reply
from tests.support.hub import HubLike, hub_at
from tests.support.images import file, image_of, layer
from tests.support.shown import Shown

LISTED = "^/v2/namespaces/grafana/repositories"


@pytest.fixture
def hub() -> Iterator[FaultServer]:
    """A server in the place of Docker Hub's API."""
    server = FaultServer()
    yield server
    server.stop()


def test_a_namespace_of_docker_hub_is_listed_by_one_question(hub: FaultServer, tmp_path: Path) -> None:
    names = {"count": 2, "next": None, "results": [{"name": "loki"}, {"name": "tempo"}]}
    hub.on("GET", LISTED, reply(200, json.dumps(names)))
    with Shown(tmp_path, hub_url=hub.url) as shown:
        assert shown.names("grafana") == ["loki", "tempo"]
        assert shown.names("docker.io/grafana") == ["loki", "tempo"]
    assert len(hub.paths(LISTED[1:])) == 1


@pytest.fixture
def registry() -> Iterator[FaultServer]:
    """A server in the place of Docker Hub's registry, which has grafana/loki."""
    docker_hub = HubLike()
    docker_hub.push("grafana/loki", "3", image_of(layer(file("a"))))
    server = FaultServer(docker_hub)
    yield server
    server.stop()


def test_an_api_that_refuses_leaves_what_is_known(hub: FaultServer, registry: FaultServer, tmp_path: Path) -> None:
    hub.on("GET", LISTED, reply(403))
    with Shown(tmp_path / "cache", hub_url=hub.url, hosts=hub_at(tmp_path, registry.url)) as shown:
        assert shown.read("grafana/loki/3/digest")
        assert shown.names("grafana") == ["loki"]


def test_the_api_is_not_asked_without_the_option(hub: FaultServer, registry: FaultServer, tmp_path: Path) -> None:
    with Shown(tmp_path / "cache", hosts=hub_at(tmp_path, registry.url)) as shown:
        with pytest.raises(AccessDenied, match="library/grafana"):
            shown.names("grafana")
        assert shown.find("grafana/loki").node
    assert hub.connections == 0


def test_what_the_api_listed_is_looked_up_without_a_request(
    hub: FaultServer, registry: FaultServer, tmp_path: Path
) -> None:
    names = {"count": 2, "next": None, "results": [{"name": f"n{number}"} for number in range(200)]}
    hub.on("GET", LISTED, reply(200, json.dumps(names)))
    with Shown(tmp_path / "cache", hub_url=hub.url, hosts=hub_at(tmp_path, registry.url)) as shown:
        listed = shown.names("grafana")
        asked = len(registry.paths())
        for name in listed:
            assert shown.attributes(f"grafana/{name}").mode == 0o040555
    assert len(registry.paths()) == asked
