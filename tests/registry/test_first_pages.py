"""The cheapest proofs that a name is there: the first page of tags, and the first repositories after a name."""

from __future__ import annotations

import json

import pytest

from regfs.errors import NotFound, ProtocolViolation, RepositoryUnknown
from regfs.model.names import RepositoryName
from tests.support.client_rig import Rig, repository_of
from tests.support.fault_server import FaultServer, reply
from tests.support.memory_registry import MemoryRegistry, error

TAGS = [f"v{number}" for number in range(10)]


def serving(rig: Rig, *, page_size: int = 1000) -> FaultServer:
    application = MemoryRegistry(page_size=page_size)
    for tag in TAGS:
        application.add_image("demo/app", tag)
    application.add_image("demo-more/app", "v1")
    application.add_image("zoo", "v1")
    return rig.server(application)


def test_tags_that_come_at_once_are_all(rig: Rig) -> None:
    server = serving(rig)
    assert rig.client(server).listing.first_tags(repository_of(server)) == (TAGS, True)
    assert server.paths() == ["GET /v2/demo/app/tags/list?n=100"]


@pytest.mark.parametrize("page_size", [1, 3])
def test_a_page_of_tags_is_one_request(rig: Rig, page_size: int) -> None:
    server = serving(rig, page_size=page_size)
    assert rig.client(server).listing.first_tags(repository_of(server)) == (TAGS[:page_size], False)
    assert len(server.paths()) == 1


@pytest.mark.parametrize(("count", "is_all"), [(1, True), (99, True), (100, False), (101, True)])
def test_as_many_tags_as_were_asked_for_without_a_link_may_be_a_page(rig: Rig, count: int, is_all: bool) -> None:
    """Some registries give pages without links, others all tags however many are requested."""
    application = MemoryRegistry()
    for number in range(count):
        application.add_image("demo/app", f"v{number}")
    server = rig.server(application)
    assert rig.client(server).listing.first_tags(repository_of(server)).is_all is is_all


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "NOT_FOUND", "NAME_INVALID"])
def test_an_error_document_says_that_there_is_no_such_repository(rig: Rig, code: str) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", lambda connection: connection.answer(error(404, code)))
    with pytest.raises(RepositoryUnknown):
        rig.client(server).listing.first_tags(repository_of(server))


@pytest.mark.parametrize(
    "body",
    ["", "<html>404</html>", "404 page not found", json.dumps({"errors": [{"code": "UNSUPPORTED"}]}),
     json.dumps({"errors": []}), json.dumps({"errors": [{"code": 7}]}), json.dumps({"errors": "NAME_UNKNOWN"}),
     "[" * 9],
)  # fmt: skip
def test_a_404_without_that_says_nothing_about_the_repository(rig: Rig, body: str) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", reply(404, body))
    with pytest.raises(NotFound) as missing:
        rig.client(server).listing.first_tags(repository_of(server))
    assert not isinstance(missing.value, RepositoryUnknown)


def test_a_page_of_a_web_server_is_no_list(rig: Rig) -> None:
    server = serving(rig)
    server.on("GET", "/tags/", reply(200, "<html>", {"Content-Type": "text/html"}))
    with pytest.raises(ProtocolViolation):
        rig.client(server).listing.first_tags(repository_of(server))


def test_repositories_after_a_name_are_one_request(rig: Rig) -> None:
    server = serving(rig, page_size=1)
    client = rig.client(server)
    assert client.listing.repositories_after(server.address, "demo/") == (["demo/app"], False)
    assert client.listing.repositories_after(server.address, "zoo/") == ([], True)
    assert server.paths() == ["GET /v2/_catalog?n=100&last=demo%2F", "GET /v2/_catalog?n=100&last=zoo%2F"]


@pytest.mark.parametrize("name", ["demo", "demo/app"])
def test_a_mirror_does_not_say_what_the_registry_has(rig: Rig, name: str) -> None:
    """The registry may have what a mirror lacks, so a mirror's "no" proves nothing."""
    mirror, server = rig.server(MemoryRegistry()), serving(rig)
    client = rig.client(server, mirrors=[mirror])
    wanted = RepositoryName(server.address, name)
    if name == "demo":
        with pytest.raises(RepositoryUnknown):
            client.listing.first_tags(wanted)
    else:
        assert client.listing.first_tags(wanted).names == TAGS
    assert mirror.paths("/tags/")


def test_a_tag_that_may_be_missing_is_one_get_and_on_docker_hub_one_head(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GET counts as a pull on Docker Hub, whose HEAD is right; elsewhere a 404 to a HEAD is asked again by GET."""
    server, hub = serving(rig), serving(rig)
    monkeypatch.setattr("regfs.registry.manifests.HUB_HOST", hub.address)
    for asked in (server, hub):
        with pytest.raises(NotFound):
            rig.client(asked).manifests.resolve(repository_of(asked), "nope", may_be_missing=True)
    assert server.paths() == ["GET /v2/demo/app/manifests/nope"]
    assert hub.paths() == ["HEAD /v2/demo/app/manifests/nope"]
