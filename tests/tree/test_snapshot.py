"""What the kernel was told goes over to another tree on the same cache: node ids keep their meaning."""

from __future__ import annotations

import json

import pytest

from regfs.errors import StaleNode
from regfs.model.node_id import ROOT
from regfs.tree.snapshot import KeptNode, Snapshot, TagImage
from tests.support.fault_server import reply
from tests.support.images import BuiltImage, directory, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}
PARTS = (
    "digest", "manifest-digest", "manifest.json", "config.json", "blobs", "layers", "layers/0", "layers/0/size",
    "layers/0/blob", "layers/0/tree/etc/version", "rootfs", "rootfs/etc/version",
)  # fmt: skip


def image(text: str) -> BuiltImage:
    return image_of(layer(directory("etc"), file("etc/version", text.encode()), file(f"only-in-{text}")))


def through_json(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* as another process reads it."""
    nodes, images, next_slot, generation = json.loads(json.dumps(snapshot))
    return Snapshot(
        tuple(KeptNode(*each) for each in nodes), tuple(TagImage(*each) for each in images), next_slot, generation
    )


def paths_of(served: Served) -> list[str]:
    """Push images and return paths of every kind of node."""
    built = served.push("team/app", "1", image("one"))
    index = served.document("team/app", "multi", index_of(built.descriptor(**AMD64)), INDEX)
    by_digest = (
        f"team/app/{built.digest}",
        f"team/app/@{str(built.digest).replace(':', '-')}",
        f"team/app@{built.digest}",
        f"team/app/@{built.digest.encoded[:12]}",
        f"team/app/{index}/manifests/linux-amd64",
    )
    images = ("team/app/1", "team/app:1", f"{served.server.address}/team/app/1", "team/app/multi", *by_digest)
    names = (".regfs", ".regfs/version", served.server.address, "team", "team/app", "team/@", "team/@/app")
    return [*names, *(path for top in images for path in (top, *(f"{top}/{part}" for part in PARTS)))]


def test_every_node_that_the_kernel_knows_means_the_same_in_another_process_and_costs_no_request(
    served: Served,
) -> None:
    paths = paths_of(served)
    first = served.show()
    found = {path: first.find(path) for path in paths}
    names = {path: first.tree.name_of(entry.node) for path, entry in found.items()}
    asked = len(served.server.seen)
    second = served.show()
    second.tree.restore(through_json(first.tree.snapshot()))
    for path, entry in found.items():
        assert second.tree.attributes(entry.node)[:2] == first.tree.attributes(entry.node)[:2], path
        assert second.tree.name_of(entry.node) == names[path]
    assert len(served.server.seen) == asked
    for path, entry in found.items():
        assert second.find(path).node == entry.node, path


def test_look_ups_are_given_back_to_the_process_that_took_them_over(served: Served) -> None:
    paths = paths_of(served)
    first = served.show()
    for path in paths * 3:
        first.find(path)
    second = served.show()
    snapshot = through_json(first.tree.snapshot())
    second.tree.restore(snapshot)
    assert sorted(second.tree.snapshot().nodes) == sorted(snapshot.nodes)
    assert sorted(second.tree.changing_entries()) == sorted(first.tree.changing_entries())
    for kept in snapshot.nodes:
        second.tree.forget(kept.node, kept.lookups - 1)
        second.tree.attributes(kept.node)
    for kept in snapshot.nodes:
        second.tree.forget(kept.node, 1)
        with pytest.raises(StaleNode):
            second.tree.attributes(kept.node)
    assert second.tree.snapshot().nodes == ()
    assert second.tree.snapshot().images == ()


def test_new_tables_get_none_of_the_node_ids_that_were_taken_over(served: Served) -> None:
    served.push("app", "1", image("one"))
    served.push("app", "2", image("two"))
    first = served.show()
    before = first.find("app/1/rootfs")
    gone = first.find("app/1/layers/0/tree")
    first.tree.forget(gone.node, 1)
    second = served.show()
    second.tree.restore(through_json(first.tree.snapshot()))
    assert second.find("app/2/rootfs").node not in (before.node, gone.node)
    assert second.find("app/1/rootfs").node == before.node


def test_a_tag_that_moved_before_or_after_the_change_of_processes_shows_the_image_that_is_in_use(
    served: Served,
) -> None:
    used = ["/team/app/1/rootfs/etc"]
    old = served.push("team/app", "1", image("old"))
    first = served.show(tag_ttl_s=0.0, used_directories=lambda: used)
    node = first.find("team/app/1/rootfs").node
    second: Shown = served.show(tag_ttl_s=0.0, used_directories=lambda: used)
    second.tree.restore(through_json(first.tree.snapshot()))
    served.push("team/app", "1", image("new"))
    assert second.find("team/app/1/rootfs").node == node
    assert second.read("team/app/1/digest") == f"{old.digest}\n".encode()
    third: Shown = served.show(tag_ttl_s=0.0, used_directories=lambda: used)
    third.tree.restore(through_json(second.tree.snapshot()))
    assert third.names("team/app/1/rootfs") == ["etc", "only-in-old"]
    used.clear()
    assert third.names("team/app/1/rootfs") == ["etc", "only-in-new"]


def test_a_name_that_is_refused_afterwards_means_what_it_meant_while_it_is_in_use(served: Served) -> None:
    used = ["/team/app/1/rootfs/etc"]
    served.push("team/app", "1", image("one"))
    first = served.show(tag_ttl_s=0.0, used_directories=lambda: used)
    node = first.find("team/app/1/rootfs").node
    second = served.show(tag_ttl_s=0.0, used_directories=lambda: used)
    second.tree.restore(through_json(first.tree.snapshot()))
    served.server.on("*", "/v2/team/app/", reply(403))
    assert second.find("team/app/1/rootfs").node == node


def test_what_the_cache_has_lost_is_fetched_again_when_it_is_needed(served: Served) -> None:
    served.push("team/app", "1", image("one"))
    first = served.show()
    rootfs = first.find("team/app/1/rootfs").node
    for path in (served.cache / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    asked = len(served.server.seen)
    second = served.show()
    second.tree.restore(first.tree.snapshot())
    assert len(served.server.seen) == asked
    assert second.tree.attributes(rootfs).node == rootfs
    assert second.read("team/app/1/rootfs/etc/version") == b"one"


def test_what_exists_no_longer_is_stale_and_the_rest_goes_on(served: Served) -> None:
    first = served.show()
    snapshot = first.tree.snapshot()
    gone = KeptNode(1 << 63 | 77, 0, ".regfs/of-an-older-release", "", ROOT, None, 1)
    second = served.show()
    second.tree.restore(snapshot._replace(nodes=(gone,)))
    with pytest.raises(StaleNode):
        second.tree.attributes(gone.node)
    assert second.tree.attributes(ROOT).node == ROOT


def test_an_image_that_was_cached_under_another_name_is_shown_by_the_next_process_without_a_registry(
    served: Served,
) -> None:
    """Its manifest was never fetched in this repository: the tag's answer alone says that it is there."""
    for name in ("first", "second"):
        served.push(name, "1", image("same"))
        served.show().read(f"{name}/1/rootfs/etc/version")
    before = served.show()
    inside = before.find("second/1/rootfs")
    snapshot = through_json(before.tree.snapshot())
    served.server.on("GET", "/", reply(503))
    served.server.on("HEAD", "/", reply(503))
    after = served.show()
    after.tree.restore(snapshot)
    assert after.tree.lookup(inside.node, b"etc").node
