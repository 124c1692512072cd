"""Registries, namespaces, repositories and tags: which names there are, and what asking for them costs."""

from __future__ import annotations

import pytest

from regfs.errors import AccessDenied, InvalidName, NotFound, RegistryUnavailable, WouldBlock
from regfs.model.node_id import ROOT
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from tests.support.fault_server import reply, silence
from tests.support.images import file, image_of, index_of, layer
from tests.support.proxy import Answer, ReverseProxy
from tests.support.push import Pusher
from tests.support.served import Served
from tests.support.shown import Shown
from tests.tree.conftest import Show

INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize("name", [".git", ".Trash-0", "-x", "UPPER case", "a/b"[:1] + "..b", "ü", "x" * 300])
def test_a_name_that_no_grammar_allows_does_not_exist_and_costs_no_request(
    show: Show, requests: ReverseProxy, name: str
) -> None:
    with pytest.raises((NotFound, InvalidName)):
        show().find(name)
    assert not requests.seen


@pytest.mark.parametrize("name", ["autorun.inf", "desktop.ini", "Thumbs.db", "favicon.png"])
def test_a_file_name_is_not_taken_for_a_registry(show: Show, requests: ReverseProxy, name: str) -> None:
    with pytest.raises(NotFound):
        show().find(name)
    assert not requests.seen


def test_a_registry_opens_without_being_asked(show: Show, requests: ReverseProxy) -> None:
    shown = show()
    assert shown.find("ghcr.io").node
    assert shown.find(requests.address).node
    assert not requests.seen


def test_listing_a_repository_is_one_listing_and_nothing_for_each_tag(
    show: Show, requests: ReverseProxy, pusher: Pusher
) -> None:
    image = pusher.image("names/many", "t0", image_of(layer(file("a"))))
    for number in range(1, 30):
        pusher.manifest("names/many", f"t{number}", image.manifest, image.media_type)
    shown = show()
    assert len(shown.names("names/many")) == 30
    requests.seen.clear()
    assert shown.names("names/many") == sorted(f"t{number}" for number in range(30))
    for tag in shown.names("names/many"):
        assert shown.attributes(f"names/many/{tag}").mode == 0o040555
    assert requests.paths("manifests/t") == []


def test_a_tag_resolves_with_one_head_and_is_believed_for_its_time(
    show: Show, requests: ReverseProxy, pusher: Pusher
) -> None:
    image = pusher.image("names/one", "v1", image_of(layer(file("a"))))
    shown = show()
    for _ in range(3):
        assert shown.read("names/one/v1/digest") == f"{image.digest}\n".encode()
    assert requests.paths("names/one/manifests/v1") == ["HEAD /v2/names/one/manifests/v1"]
    assert requests.paths("GET .*names/one/manifests") == []


def test_an_unlisted_tag_and_an_unlisted_digest_open(show: Show, pusher: Pusher) -> None:
    image = pusher.image("names/by-digest", "v1", image_of(layer(file("a"))))
    shown = show()
    assert shown.read(f"names/by-digest/{image.digest}/manifest.json") == image.manifest
    assert str(image.digest) not in shown.names("names/by-digest")


def test_pasted_references_open(show: Show, pusher: Pusher) -> None:
    image = pusher.image("names/pasted", "v1", image_of(layer(file("a"))))
    shown = show()
    assert shown.read("names/pasted:v1/manifest.json") == image.manifest
    assert shown.read(f"names/pasted@{image.digest}/manifest.json") == image.manifest
    assert shown.read(f"names/pasted:v1@{image.digest}/manifest.json") == image.manifest


def test_a_missing_tag_does_not_exist(show: Show, pusher: Pusher) -> None:
    pusher.image("names/some", "v1", image_of(layer(file("a"))))
    with pytest.raises(NotFound):
        show().find("names/some/v2")


def test_a_missing_repository_is_not_listed_as_an_empty_one(show: Show) -> None:
    shown = show()
    with pytest.raises(NotFound):
        shown.names("names/never-pushed/at-all")


def test_the_tag_wins_over_a_repository_of_the_same_name_and_the_escape_reaches_that(
    show: Show, pusher: Pusher
) -> None:
    outer = pusher.image("names/outer", "same", image_of(layer(file("outer"))))
    inner = pusher.image("names/outer/same", "v1", image_of(layer(file("inner"))))
    shown = show()
    assert shown.read("names/outer/same/manifest.json") == outer.manifest
    assert shown.read("names/outer/@/same/v1/manifest.json") == inner.manifest
    assert shown.names("names/outer/@") == ["same"]


def test_a_nested_repository_opens_beside_tags(show: Show, pusher: Pusher) -> None:
    pusher.image("names/deep", "v1", image_of(layer(file("a"))))
    nested = pusher.image("names/deep/er/still", "v2", image_of(layer(file("b"))))
    shown = show()
    assert shown.read("names/deep/er/still/v2/manifest.json") == nested.manifest
    assert {"v1", "er"} <= set(shown.names("names/deep"))


def test_a_catalog_that_is_refused_leaves_what_was_visited(show: Show, requests: ReverseProxy, pusher: Pusher) -> None:
    pusher.image("visited/app", "v1", image_of(layer(file("a"))))
    requests.answer = lambda seen: Answer(401) if "_catalog" in seen.path else None
    shown = show()
    assert shown.read("visited/app/v1/digest")
    assert "visited" in shown.names()
    assert shown.names("visited") == ["app"]


def test_a_registry_that_fails_leaves_the_root_readable(show: Show, requests: ReverseProxy) -> None:
    requests.answer = lambda _seen: Answer(500)
    assert ".regfs" in show().names()


def test_a_refused_repository_is_refused_not_missing(show: Show, requests: ReverseProxy) -> None:
    requests.answer = lambda seen: Answer(403)
    shown = show()
    with pytest.raises(AccessDenied):
        shown.read("secret/app/v1/digest")
    with pytest.raises(AccessDenied):
        shown.names("secret/app")


def test_a_failing_registry_is_never_a_missing_file(show: Show, requests: ReverseProxy) -> None:
    requests.answer = lambda seen: Answer(503)
    with pytest.raises(RegistryUnavailable):
        show().find("library/debian/12/digest")


def test_what_must_be_asked_is_not_asked_without_patience(show: Show, requests: ReverseProxy) -> None:
    shown = show()
    for name in (b"debian", b"debian:12"):
        with under(NON_BLOCKING), pytest.raises(WouldBlock):
            shown.tree.lookup(ROOT, name)
    assert not requests.seen


def test_a_missing_name_is_asked_for_once_in_a_while(show: Show, requests: ReverseProxy, pusher: Pusher) -> None:
    pusher.image("names/probed", "v1", image_of(layer(file("a"))))
    shown = show()
    for _ in range(5):
        with pytest.raises(NotFound):
            shown.find("names/probed/nothing")
    assert len(requests.paths("names/probed/manifests/nothing")) <= 2


def test_another_repositorys_private_manifest_does_not_appear(
    show: Show, requests: ReverseProxy, pusher: Pusher
) -> None:
    private = pusher.image("names/private", "v1", image_of(layer(file("secret"))))
    pusher.image("names/public", "v1", image_of(layer(file("open"))))
    shown = show()
    assert shown.read(f"names/private/{private.digest}/manifest.json")
    with pytest.raises(NotFound):
        shown.find(f"names/public/{private.digest}")


def test_attestations_and_twice_named_platforms_are_found_by_digest(show: Show, pusher: Pusher) -> None:
    image = pusher.image("names/multi", "amd64", image_of(layer(file("a"))))
    twin = pusher.image("names/multi", "twin", image_of(layer(file("b"))))
    amd64 = {"platform": {"os": "linux", "architecture": "amd64"}}
    index = index_of(image.descriptor(**amd64), twin.descriptor(**amd64))
    pusher.manifest("names/multi", "all", index, INDEX)
    shown = show()
    assert shown.names("names/multi/all/manifests") == ["linux-amd64", str(twin.digest)]
    assert shown.read("names/multi/all/manifests/linux-amd64/manifest.json") == image.manifest
    assert shown.read("names/multi/all/index.json") == index


def test_a_catalog_that_hangs_costs_no_listing_of_tags_and_no_missing_name(served: Served) -> None:
    built = image_of(layer(file("a")))
    served.push("app", "1", built)
    served.push("app/nested", "1", built)
    served.server.on("GET", "_catalog", silence)
    shown = served.show()
    with under(Deadline(20)):
        assert shown.read("app/nested/1/digest")
        assert shown.names("app") == ["1", "nested"]
        with pytest.raises(NotFound):
            shown.find("app/no-such")
    assert len(served.server.paths("_catalog")) == 1


def test_namespaces_that_led_somewhere_do_so_offline(served: Served) -> None:
    served.push("team/project/app", "1", image_of(layer(file("a", b"a"))))
    assert served.show().read("team/project/app/1/rootfs/a") == b"a"
    shown = served.show(offline=True, tag_ttl_s=0.0)
    assert shown.read("team/project/app/1/rootfs/a") == b"a"
    assert shown.names("team") == ["project"]
    assert shown.names("team/project") == ["app"]
    assert shown.names("team/project/app") == ["1"]
    with pytest.raises(RegistryUnavailable):
        shown.find("team/other")


def test_a_repository_whose_tags_cannot_be_had_is_not_listed_as_a_namespace(served: Served) -> None:
    built = image_of(layer(file("a")))
    served.push("app", "1", built)
    served.push("app/nested", "1", built)
    shown = served.show(tag_ttl_s=0.0)
    assert "app" in shown.names()
    served.server.on("*", "app/tags|app/manifests", reply(503))
    with pytest.raises(RegistryUnavailable):
        shown.names("app")


def test_a_repository_that_looks_like_a_host_is_not_listed_where_its_name_is_a_registry(served: Served) -> None:
    served.push("my.app", "1", image_of(layer(file("a"))))
    served.push("app", "1", image_of(layer(file("a"))))
    shown = served.show()
    assert "my.app" not in shown.names()
    assert "app" in shown.names()
    assert shown.names(served.server.address) == ["app", "my.app"]
    assert shown.names(f"{served.server.address}/my.app") == ["1"]


def test_the_root_lists_what_is_known_without_a_wait_and_asks_docker_hub_nothing(served: Served) -> None:
    shown = Shown(served.cache)
    with under(NON_BLOCKING):
        assert shown.names() == [".regfs", "docker.io"]


def test_the_way_to_a_repository_that_was_just_visited_asks_nothing(
    show: Show, requests: ReverseProxy, pusher: Pusher
) -> None:
    pusher.image("way/app", "v1", image_of(layer(file("a"))))
    show().read("way/app/v1/digest")
    requests.seen.clear()
    assert show().read("way/app/v1/digest")
    assert not requests.seen
