"""A name that is not there is not there: by one cheap question, and only by the registry's own "no"."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import AccessDenied, NotFound, Offline, RegfsError
from regfs.process.waiting.deadline import Deadline, under
from tests.support.fault_server import Action, FaultServer, Response, Seen, changed, reply, silence
from tests.support.hub import HubLike, hub_at
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry
from tests.support.served import Served
from tests.support.shown import Shown

IMAGE = image_of(layer(file("hello", b"hi")))
WEB_PAGE = reply(200, "<!DOCTYPE html>", {"Content-Type": "text/html"})


@pytest.fixture
def org(served: Served) -> Served:
    """A registry that has one, org/app and org/deep/er/still."""
    for name in ("one", "org/app", "org/deep/er/still"):
        served.push(name, "v1", IMAGE)
    return served


def is_there(shown: Shown, path: str) -> bool:
    """Tell what `[ -e path ]` tells."""
    try:
        shown.find(path)
    except NotFound:
        return False
    return True


@pytest.mark.parametrize(
    "path", ["nope", "ornithology", "org/nope", "one/nope", "org/app/nope", "org/deep/nope", "org/deep/er/nope/x"]
)
def test_a_name_that_leads_nowhere_does_not_exist(org: Served, path: str) -> None:
    assert not is_there(org.show(), path)


@pytest.mark.parametrize(
    "path", ["one", "org", "org/app", "org/app/v1", "org/deep", "org/deep/er", "org/deep/er/still"]
)
def test_a_name_that_leads_somewhere_exists_before_anything_was_listed(org: Served, path: str) -> None:
    assert is_there(org.show(), path)


def test_a_repository_that_is_there_costs_one_request_until_the_tag_ttl_is_over(org: Served) -> None:
    shown = org.show()
    for _ in range(5):
        assert is_there(shown, "one")
    assert org.server.paths() == ["GET /v2/one/tags/list?n=100"]


def test_what_is_pushed_after_a_miss_is_there_at_once_without_a_memory(org: Served) -> None:
    shown = org.show(tag_ttl_s=0.0)
    for name in ("new", "new-org/app"):
        assert not is_there(shown, name)
        org.push(name, "v1", IMAGE)
        assert shown.read(f"{name}/v1/rootfs/hello") == b"hi"


def test_a_namespace_that_is_pushed_after_the_catalog_was_listed_is_there(org: Served) -> None:
    shown = org.show()
    assert "org" in shown.names()
    org.push("later/app", "v1", IMAGE)
    assert shown.read("later/app/v1/rootfs/hello") == b"hi"


def test_entries_of_a_listing_are_looked_up_without_a_request(served: Served) -> None:
    for number in range(100):
        served.push(f"many/r{number}", "v1", IMAGE)
        served.push("many", f"t{number}", IMAGE)
    shown = served.show()
    names = shown.names("many")
    assert len(names) == 200
    asked = len(served.server.seen)
    for name in names:
        assert is_there(shown, f"many/{name}")
    assert len(served.server.seen) == asked


def test_entries_of_a_listing_of_what_was_visited_are_looked_up_without_a_request(served: Served) -> None:
    served.server.on("GET", "_catalog", reply(401))
    first = served.show()
    for number in range(20):
        served.push(f"visited/r{number}", "v1", IMAGE)
        assert first.read(f"visited/r{number}/v1/digest")
    first.repositories.refresh()  # as if it had been long ago
    shown = served.show()
    names = shown.names("visited")
    assert len(names) == 20
    asked = len(served.server.seen)
    for name in names:
        assert is_there(shown, f"visited/{name}")
    assert len(served.server.seen) == asked


def test_a_hundred_that_ask_at_once_ask_once(org: Served) -> None:
    shown, found = org.show(), []
    threads = [threading.Thread(target=lambda: found.append(is_there(shown, "one"))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 30
    assert len(org.server.paths("one/tags")) == 1


LISTS_NOTHING: list[Action] = [reply(status) for status in (400, 401, 403, 404, 405, 500, 501)] + [WEB_PAGE]


@pytest.mark.parametrize("answer", LISTS_NOTHING, ids=["400", "401", "403", "404", "405", "500", "501", "HTML"])
def test_where_lists_are_refused_nested_repositories_open(org: Served, answer: Action) -> None:
    org.server.on("GET", "/tags/list|_catalog", answer)
    for path in ("one/v1", "org/app/v1", "org/deep/er/still/v1", "org/app:v1"):
        assert org.show().read(f"{path}/rootfs/hello") == b"hi"


@pytest.mark.parametrize("answer", LISTS_NOTHING, ids=["400", "401", "403", "404", "405", "500", "501", "HTML"])
def test_a_repository_below_one_whose_list_is_refused_opens_after_it(served: Served, answer: Action) -> None:
    served.push("app", "1", IMAGE)
    served.push("app/nested", "1", IMAGE)
    served.server.on("GET", "/tags/list|_catalog", answer)
    shown = served.show()
    assert shown.read("app/1/rootfs/hello") == b"hi"
    assert shown.read("app/nested/1/rootfs/hello") == b"hi"


@pytest.mark.parametrize("status", [200, 401, 403, 404, 405, 429, 500, 503])
def test_only_the_registrys_own_no_makes_a_name_missing(org: Served, status: int) -> None:
    """A 404 without the specification's error document is not the registry's word, and neither is a page."""
    org.server.on("GET", "/tags/list|_catalog", reply(status, "<html>not here</html>"))
    assert is_there(org.show(), "nope")


def test_a_list_that_hangs_delays_a_look_up_by_some_seconds_and_only_once(
    org: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regfs.images.answers.existence._ANSWER_S", 0.3)
    org.server.on("GET", "/tags/list|_catalog", silence)
    shown = org.show()
    with under(Deadline(30)):
        assert shown.read("org/app/v1/rootfs/hello") == b"hi"
        assert is_there(shown, "nope")
    assert len(org.server.paths("tags/list")) == 1


def test_a_catalog_that_passes_over_where_to_begin_is_read_to_its_end(org: Served) -> None:
    """Some registries know no `last`, others neither `last` nor `n`."""

    def from_the_start(response: Response) -> Response:
        del response
        return org.registry.respond(Seen("GET", "/v2/_catalog", {}, b"", 0))

    for page_size in (1000, 1):
        org.server.heal()
        org.registry.page_size = page_size
        org.server.on("GET", r"_catalog\?n=100", changed(from_the_start))
        shown = org.show(tag_ttl_s=0.0)
        assert is_there(shown, "org/deep")
        assert not is_there(shown, "nope")
        assert not is_there(shown, "zzz")


@pytest.mark.parametrize("listed", ["[]", "null"])
def test_an_empty_catalog_hides_no_repository(org: Served, listed: str) -> None:
    """Some registries answer those who may not list with an empty list: org/app was missing there."""
    org.server.on("GET", "_catalog", reply(200, f'{{"repositories": {listed}}}', {"Content-Type": "application/json"}))
    shown = org.show()
    assert shown.read("org/app/v1/rootfs/hello") == b"hi"
    assert is_there(shown, "org/deep/er/still/v1")
    assert not is_there(shown, "org/app/nope.no")


def test_a_catalog_that_lacks_what_was_visited_hides_no_repository(org: Served) -> None:
    """Some registries list the public repositories alone, whatever the user may read."""
    public = reply(200, '{"repositories": ["one"]}', {"Content-Type": "application/json"})
    org.server.on("GET", "_catalog", public)
    shown = org.show(tag_ttl_s=0.0)
    assert not is_there(shown, "nope")
    assert shown.read("@/org/app/v1/rootfs/hello") == b"hi"
    shown.repositories.refresh()  # else the catalog is compared again after a minute
    assert is_there(shown, "nope")  # which this registry cannot tell
    assert is_there(shown, "another/app")


def test_a_name_is_missing_where_the_catalog_has_what_was_visited(org: Served) -> None:
    """Also where names sort close to that repository, and where it was deleted since."""
    for name in ("org/apo/x", "org/apo1", "org/app/x", "org/ap"):
        org.push(name, "v1", IMAGE)
    shown = org.show(tag_ttl_s=0.0)
    assert shown.read("org/app/v1/rootfs/hello") == b"hi"
    assert not is_there(shown, "nope")
    del org.registry.repositories["org/app"]
    shown.repositories.refresh()
    assert not is_there(shown, "nope")


class PullThrough(MemoryRegistry):
    """A pull-through cache of Docker Hub: it answers for all that there is there, and lists what it has cached."""

    cached: frozenset[str] = frozenset()

    def respond(self, seen: Seen) -> Response:
        if not seen.path.startswith("/v2/_catalog"):
            return super().respond(seen)
        listed = MemoryRegistry()
        listed.repositories = {name: held for name, held in self.repositories.items() if name in self.cached}
        return listed.respond(seen)


@pytest.mark.parametrize("cached", [frozenset(), frozenset({"org/app"}), frozenset({"library/alpine"})])
def test_the_catalog_of_a_pull_through_cache_hides_no_name(served: Served, cached: frozenset[str]) -> None:
    cache = PullThrough()
    cache.cached = cached
    cache.repositories = served.registry.repositories
    served.server.application = cache
    for name in ("library/hello-world", "library/alpine", "org/app", "bitnami/redis"):
        served.push(name, "7", IMAGE)
    shown = served.show()
    assert shown.read("bitnami/redis/7/rootfs/hello") == b"hi"
    assert shown.read("library/alpine/7/rootfs/hello") == b"hi"


def test_a_real_pull_through_cache_hides_no_name(
    docker_registry: DockerRegistry, pusher: Pusher, tmp_path: Path
) -> None:
    for name in ("library/hello-world", "behind/app"):
        pusher.image(name, "7", IMAGE)
    (tmp_path / "proxy").mkdir()
    with (
        DockerRegistry(tmp_path / "proxy", proxy_of=docker_registry.url) as cache,
        Shown(tmp_path / "cache", default_registry=cache.address) as shown,
    ):
        assert shown.read("behind/app/7/rootfs/hello") == b"hi"
        assert is_there(shown, "nope")  # which it cannot tell


def test_below_the_escape_every_name_opens_unasked(org: Served) -> None:
    shown = org.show()
    assert is_there(shown, "@/unlisted")
    assert is_there(shown, "one/@/unlisted")
    assert org.server.paths("unlisted") == []
    assert shown.read("@/org/app/v1/rootfs/hello") == b"hi"


def test_offline_what_is_known_exists_and_of_the_rest_nothing_is_said(org: Served) -> None:
    online = org.show()
    assert online.read("org/app/v1/rootfs/hello") == b"hi"
    shown = org.show(offline=True, tag_ttl_s=0.0)
    assert is_there(shown, "org/app")
    for name in ("nope", "org/nope"):
        with pytest.raises(Offline):
            shown.find(name)


def test_a_registry_that_is_gone_says_nothing(org: Served) -> None:
    org.server.stop()
    shown = org.show()
    assert is_there(shown, "nope")
    with pytest.raises(RegfsError) as failed:
        shown.names("nope")
    assert not isinstance(failed.value, NotFound)


# Docker Hub.


@pytest.fixture
def hub() -> HubLike:
    """Docker Hub with library/debian, bitnami/redis, and nginx as an official image and as a namespace."""
    docker_hub = HubLike()
    for name, tag in (("library/debian", "12"), ("bitnami/redis", "7"), ("library/nginx", "1"), ("nginx/unit", "2")):
        docker_hub.push(name, tag, IMAGE)
    return docker_hub


@pytest.fixture
def server(hub: HubLike) -> Iterator[FaultServer]:
    with FaultServer(hub) as server:
        yield server


@pytest.fixture
def shown(server: FaultServer, tmp_path: Path) -> Iterator[Shown]:
    with Shown(tmp_path / "cache", hosts=hub_at(tmp_path, server.url)) as shown:
        yield shown


def test_on_docker_hub_one_name_is_an_official_image(shown: Shown, server: FaultServer) -> None:
    assert shown.names("debian") == ["12"]
    assert shown.read("debian/12/rootfs/hello") == b"hi"
    assert shown.read("library/debian/12/rootfs/hello") == b"hi"
    assert shown.read("docker.io/debian/12/rootfs/hello") == b"hi"
    assert not is_there(shown, "debian/13")
    assert server.paths("/v2/debian/12") == []


def test_on_docker_hub_a_name_may_be_a_namespace_and_an_official_image(shown: Shown) -> None:
    assert shown.read("nginx/1/rootfs/hello") == b"hi"
    assert shown.read("nginx/unit/2/rootfs/hello") == b"hi"
    assert shown.names("nginx") == ["1", "unit"]


def test_on_docker_hub_a_namespace_opens_and_its_listing_says_why_it_is_empty(
    shown: Shown, server: FaultServer
) -> None:
    assert shown.read("bitnami/redis/7/rootfs/hello") == b"hi"
    assert shown.names("bitnami") == ["redis"]
    assert server.paths("bitnami/manifests") == []  # the namespace was refused as an image: it has no tags to ask for
    assert is_there(shown, "qwertytypo")
    with pytest.raises(AccessDenied, match="library/qwertytypo"):
        shown.names("qwertytypo")


def test_on_docker_hub_the_namespace_library_is_no_question(shown: Shown, server: FaultServer) -> None:
    assert is_there(shown, "library")
    assert server.paths() == []


def test_on_docker_hub_nothing_is_below_a_repository(shown: Shown) -> None:
    assert not is_there(shown, "bitnami/redis/nope")
    assert not is_there(shown, "nginx/unit/nope")


def test_a_deleted_repository_of_which_content_is_cached_opens_by_digest(served: Served) -> None:
    built: BuiltImage = served.push("app", "1", IMAGE)
    served.push("other", "1", IMAGE)  # an empty catalog would say nothing
    assert served.show().read(f"app/{built.digest}/rootfs/hello") == b"hi"
    served.registry.repositories.pop("app")
    shown = served.show(tag_ttl_s=0.0)
    assert shown.read(f"app/{built.digest}/rootfs/hello") == b"hi"
    assert not is_there(shown, "app/1")
