"""Docker Hub's namespaces, listed by its API for those who opted in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer, reply
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


def test_an_api_that_refuses_leaves_what_is_known(hub: FaultServer, tmp_path: Path) -> None:
    hub.on("GET", LISTED, reply(403))
    with Shown(tmp_path, hub_url=hub.url) as shown:
        assert shown.names("grafana") == []
        assert shown.find("grafana/loki").node


def test_nobody_asks_the_api_who_has_not_opted_in(hub: FaultServer, tmp_path: Path) -> None:
    with Shown(tmp_path) as shown:
        assert shown.names("grafana") == []
    assert hub.connections == 0
