"""What the look-up of a name that is not there costs: requests counted at the registry, row by row of the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_server import Action, FaultServer, Response, Seen, reply
from tests.support.hub import HubLike, hub_at
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry, error
from tests.support.proxy import ReverseProxy
from tests.support.push import Pusher
from tests.support.served import Served
from tests.support.shown import Shown
from tests.tree.conftest import Show
from tests.tree.test_existence import PullThrough, is_there

IMAGE = image_of(layer(file("hello", b"hi")))
HELLO_WORLD = "GET /v2/library/hello-world/tags/list?n=100"


def tags_of(repository: str) -> str:
    return f"GET /v2/{repository}/tags/list?n=100"


def catalog_after(path: str) -> str:
    return f"GET /v2/_catalog?n=100&last={path.replace('/', '%2F')}%2F"


def asked_for(shown: Shown, path: str, server: FaultServer | ReverseProxy) -> list[str]:
    """Return what is asked for by the first look-up of *path*, which is not there; those that follow ask nothing."""
    asked = len(server.paths())
    assert not is_there(shown, path)
    after = server.paths()
    for _ in range(3):
        assert not is_there(shown, path)
    assert server.paths() == after
    return after[asked:]


@pytest.fixture
def org(served: Served) -> Served:
    """A registry with a catalog that has one, org/app with two tags, and org/deep/er."""
    for name, tag in (("one", "v1"), ("org/app", "v1"), ("org/app", "v2"), ("org/deep/er", "v1")):
        served.push(name, tag, IMAGE)
    return served


def test_a_missing_tag_costs_the_question_for_it_and_the_one_for_a_repository_of_that_name(org: Served) -> None:
    shown = org.show()
    assert is_there(shown, "org/app")
    assert asked_for(shown, "org/app/nope", org.server) == [
        "GET /v2/org/app/manifests/nope",
        tags_of("org/app/nope"),
    ]


def test_a_missing_tag_costs_the_same_at_docker_registry(show: Show, requests: ReverseProxy, pusher: Pusher) -> None:
    for tag in ("v1", "v2"):
        pusher.image("costs/app", tag, IMAGE)
    shown = show()
    assert is_there(shown, "costs/app")
    assert asked_for(shown, "costs/app/nope", requests) == [
        "GET /v2/costs/app/manifests/nope",
        tags_of("costs/app/nope"),
    ]


def test_the_catalog_is_asked_once_for_all_names_in_a_repository(org: Served) -> None:
    shown = org.show()
    assert is_there(shown, "one")
    first = asked_for(shown, "one/nope", org.server)
    assert first == ["GET /v2/one/manifests/nope", tags_of("one/nope"), catalog_after("one")]
    for name in ("another", "third"):
        assert asked_for(shown, f"one/{name}", org.server) == [f"GET /v2/one/manifests/{name}", tags_of(f"one/{name}")]


def test_a_repository_that_was_just_listed_needs_no_other_question_to_the_catalog(org: Served) -> None:
    shown = org.show()
    assert shown.names("one") == ["v1"]
    assert asked_for(shown, "one/nope", org.server) == ["GET /v2/one/manifests/nope", tags_of("one/nope")]


def test_a_repository_with_more_below_it_than_a_page_has_costs_one_question_more_and_tells_the_truth(
    served: Served,
) -> None:
    for name in ("app", "app/z/deep", *(f"app/r{number}" for number in range(8))):
        served.push(name, "v1", IMAGE)
    served.registry.page_size = 3
    shown = served.show()
    assert is_there(shown, "app")
    assert len(asked_for(shown, "app/nope", served.server)) == 4
    assert len(asked_for(shown, "app/another", served.server)) == 3
    assert shown.read("app/z/deep/v1/rootfs/hello") == b"hi"


def test_a_missing_repository_in_a_namespace_that_was_just_looked_up_costs_one_request(org: Served) -> None:
    shown = org.show()
    assert not is_there(shown, "org/first")  # the registry is asked once whether it is a cache of Docker Hub
    assert asked_for(shown, "org/nope", org.server) == [tags_of("org/nope")]


def test_a_missing_repository_costs_one_request_and_one_to_the_catalog(org: Served) -> None:
    shown = org.show()
    assert asked_for(shown, "nope", org.server) == [tags_of("nope"), catalog_after("nope"), HELLO_WORLD]
    assert asked_for(shown, "another", org.server) == [tags_of("another"), catalog_after("another")]


def test_whether_a_registry_is_a_cache_is_asked_once_for_all_mounts(org: Served) -> None:
    for _ in range(3):
        assert not is_there(org.show(), "nope")
    assert org.server.paths("hello-world") == [HELLO_WORLD]


def test_a_registry_that_could_not_say_whether_it_is_a_cache_is_asked_by_the_next_mount(org: Served) -> None:
    org.server.on("GET", "hello-world", reply(503))
    assert not is_there(org.show(), "nope")
    org.server.heal()
    assert not is_there(org.show(), "nope")
    assert org.server.paths("hello-world")[-1] == HELLO_WORLD
    asked = len(org.server.paths("hello-world"))
    assert not is_there(org.show(), "nope")
    assert len(org.server.paths("hello-world")) == asked


def test_that_a_registry_is_a_cache_needs_no_question_where_nothing_hangs_on_it(org: Served) -> None:
    shown = org.show()
    for path in ("one", "org/app/v1", "org/deep/er", "one/v1"):
        assert is_there(shown, path)
    assert not is_there(shown, "org/app/nope")
    assert org.server.paths("hello-world") == []


REFUSED = {"401": reply(401), "403": reply(403), "404": reply(404), "405": reply(405), "HTML": reply(200, "<html>")}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_missing_tag_costs_two_requests_where_there_is_no_catalog(org: Served, refused: Action) -> None:
    org.server.on("GET", "_catalog", refused)
    shown = org.show()
    assert is_there(shown, "one")
    assert not is_there(shown, "one/first")  # the catalog is asked once in a minute
    assert asked_for(shown, "one/nope", org.server) == ["GET /v2/one/manifests/nope", tags_of("one/nope")]


class WithoutCatalog(MemoryRegistry):
    """GHCR: no catalog, and what is not there is refused."""

    def respond(self, seen: Seen) -> Response:
        answer = super().respond(seen)
        return error(403, "DENIED") if "_catalog" in seen.path or answer.status == 404 else answer


def test_where_what_is_missing_is_refused_the_name_opens_at_the_cost_of_one_request(served: Served) -> None:
    served.server.application = WithoutCatalog()
    shown = served.show()
    for name in ("nope", "org/nope"):
        asked = len(served.server.paths())
        for _ in range(3):
            assert is_there(shown, name)
        assert served.server.paths()[asked:].count(tags_of(name)) == 1
    assert served.server.paths("tags/list|_catalog") == [tags_of("nope"), tags_of("org"), tags_of("org/nope")]


# Docker Hub.


@pytest.fixture
def hub_server() -> Iterator[FaultServer]:
    hub = HubLike()
    for name in ("library/debian", "bitnami/redis"):
        hub.push(name, "12", IMAGE)
    with FaultServer(hub) as server:
        yield server


@pytest.fixture
def hub_shown(hub_server: FaultServer, tmp_path: Path) -> Iterator[Shown]:
    with Shown(tmp_path / "cache", hosts=hub_at(tmp_path, hub_server.url)) as shown:
        yield shown


@pytest.mark.parametrize("path", ["library/debian", "bitnami/redis"])
def test_on_docker_hub_a_missing_tag_costs_one_request(hub_shown: Shown, hub_server: FaultServer, path: str) -> None:
    assert is_there(hub_shown, path)
    assert asked_for(hub_shown, f"{path}/nope", hub_server) == [f"GET /v2/{path}/manifests/nope?ns=docker.io"]


def test_on_docker_hub_what_may_be_a_users_repository_too_costs_two(hub_shown: Shown, hub_server: FaultServer) -> None:
    assert is_there(hub_shown, "debian")
    assert asked_for(hub_shown, "debian/nope", hub_server) == [
        "GET /v2/library/debian/manifests/nope?ns=docker.io",
        f"{tags_of('debian/nope')}&ns=docker.io",
    ]


# What a tag that is there costs.


def test_tags_of_a_listing_are_asked_for_by_head_and_only_when_they_are_looked_into(org: Served) -> None:
    for number in range(20):
        org.push("many", f"t{number}", IMAGE)
    shown = org.show()
    for tag in shown.names("many"):
        assert is_there(shown, f"many/{tag}")
    assert org.server.paths("manifests") == []
    for tag in shown.names("many"):
        assert shown.read(f"many/{tag}/digest")
    assert {path.split()[0] for path in org.server.paths("manifests")} == {"HEAD"}


def test_a_tag_that_no_listing_has_is_one_get_which_is_also_the_one_for_its_manifest(org: Served) -> None:
    org.server.on("GET", "tags/list", reply(405))
    shown = org.show()
    assert shown.read("one/v1/manifest.json") == IMAGE.manifest
    assert org.server.paths("manifests") == ["GET /v2/one/manifests/v1"]


def test_a_tag_that_was_seen_before_is_asked_for_by_head(org: Served) -> None:
    org.server.on("GET", "tags/list", reply(405))
    assert is_there(org.show(), "one/v1")
    shown = org.show(tag_ttl_s=0.0)
    assert is_there(shown, "one/v1")
    assert org.server.paths("manifests") == ["GET /v2/one/manifests/v1", "HEAD /v2/one/manifests/v1"]


@pytest.mark.parametrize(
    "wrong", [reply(200, "<html>"), reply(200, b"{" + b" " * (5 << 20))], ids=["page", "too large"]
)
def test_a_tag_whose_manifest_cannot_be_read_is_still_there(org: Served, wrong: Action) -> None:
    org.server.on("GET", "tags/list", reply(405))
    org.server.on("GET", "manifests", wrong)
    assert is_there(org.show(), "one/v1")


# What is asked for less may not be told wrong.


def test_a_repository_below_a_repository_opens_though_the_catalog_lacks_it(org: Served) -> None:
    """A pull-through cache of GHCR lists what it has cached: org/app was there, org/app/sub was not."""
    org.push("org/app/sub", "v1", IMAGE)
    listed = reply(200, '{"repositories": ["one", "org/app"]}', {"Content-Type": "application/json"})
    org.server.on("GET", "_catalog", listed)
    shown = org.show()
    assert not is_there(shown, "org/app/nope")
    assert shown.read("org/app/sub/v1/rootfs/hello") == b"hi"


def test_a_tag_opens_though_the_list_lacks_it(org: Served) -> None:
    """zot fetches on demand what is asked for, and lists what it has."""
    org.server.on("GET", "one/tags/list", reply(200, '{"tags": ["v0"]}', {"Content-Type": "application/json"}))
    shown = org.show()
    assert shown.names("one") == ["v0"]
    assert shown.read("one/v1/rootfs/hello") == b"hi"


@pytest.mark.parametrize("nested", ["one/new", "one/new/deep"])
def test_what_is_pushed_below_a_repository_after_it_was_listed_is_there(org: Served, nested: str) -> None:
    shown = org.show(tag_ttl_s=0.0)
    assert shown.names("one") == ["v1"]
    assert not is_there(shown, "one/nope")
    org.push(nested, "v1", IMAGE)
    assert shown.read(f"{nested}/v1/rootfs/hello") == b"hi"


@pytest.mark.parametrize(
    "neighbours", [["one-a/x", "one.b/y"], ["one-a/x", *(f"one.{number}/y" for number in range(9))]]
)
@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_a_namespace_in_a_repository_opens_wherever_its_neighbours_sort(
    served: Served, neighbours: list[str], page_size: int
) -> None:
    for name in ("one", "one/deep/er", "one0/z", "zoo", *neighbours):
        served.push(name, "v1", IMAGE)
    served.registry.page_size = page_size
    shown = served.show()
    assert not is_there(shown, "one/nope")
    assert not is_there(shown, "one/de")
    assert shown.read("one/deep/er/v1/rootfs/hello") == b"hi"


def test_a_cache_that_has_cached_the_repository_by_which_it_is_told_is_told_by_another(served: Served) -> None:
    cache = PullThrough()
    cache.cached = frozenset({"library/hello-world"})
    cache.repositories = served.registry.repositories
    served.server.application = cache
    for name in ("library/hello-world", "library/hylang", "bitnami/redis"):
        served.push(name, "7", IMAGE)
    assert served.show().read("bitnami/redis/7/rootfs/hello") == b"hi"
