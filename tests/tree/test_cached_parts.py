"""`.regfs/cache/`: what the cache holds, and by whom."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from regfs.errors import InUse, NotFound, ReadOnly, RegistryUnavailable, WouldBlock
from regfs.images import eviction_by_name
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.store.eviction.pins import keep_pin
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown


@pytest.fixture
def built(served: Served) -> BuiltImage:
    return served.push("app", "1", image_of(layer(file("a", b"a" * 100_000)), layer(file("b", b"b"))))


def told(shown: Shown, path: str) -> dict[str, str]:
    lines = shown.read(f".regfs/cache/{path}").decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_an_image_tells_its_name_size_parts_and_who_holds_it(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    opened = shown.tree.open(shown.find("app/1/rootfs/a").node)
    short = built.digest.encoded[:12]
    assert shown.names(".regfs/cache/images") == [short]
    facts = told(shown, f"images/{short}")
    assert facts["name"] == f"{served.server.address}/app:1"
    assert facts["manifest"] == str(built.digest)
    assert facts["layers"] == "2 of 2"
    assert int(facts["size"]) > 100_000
    assert facts["held"] == "open"
    opened.close()


def test_a_layer_tells_whose_it_is_and_when_it_was_used(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    assert len(shown.names(".regfs/cache/layers")) == 2
    name = built.layers[0].diff_id.encoded
    assert told(shown, f"layers/{name}")["image"] == f"{served.server.address}/app:1"
    used_ns = shown.app.layers.index_path(built.layers[0].diff_id).stat().st_mtime_ns
    assert shown.attributes(f".regfs/cache/layers/{name}").mtime_ns == used_ns
    assert len(shown.names(".regfs/cache/tables")) == 1
    assert shown.names(".regfs/cache/blobs") != []


def test_what_is_pinned_says_so_and_what_nothing_holds_too(served: Served, built: BuiltImage) -> None:
    with served.show() as shown:
        shown.names("app/1/rootfs")
    first, second = (served.show().app.layers.index_path(each.diff_id) for each in built.layers)
    keep_pin(served.cache, built.digest, "app:1", [first])
    shown = served.show()
    assert told(shown, f"layers/{first.stem}")["held"] == "pinned"
    assert told(shown, f"layers/{second.stem}")["held"] == "by nothing"


def test_what_is_not_held_is_not_there_and_no_reader_of_requests_works_it_out(served: Served) -> None:
    shown = served.show()
    with pytest.raises(NotFound, match="images, layers, tables, blobs"):
        shown.find(".regfs/cache/others")
    directory = shown.find(".regfs/cache/images")
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.listing(directory.node)
    assert shown.names(".regfs/cache/images") == []
    with pytest.raises(NotFound):
        shown.find(".regfs/cache/images/0123456789ab")
    assert served.server.seen == []


def remove(shown: Shown, path: str) -> None:
    """Do what `rm .regfs/cache/PATH` does."""
    kind, _, name = path.partition("/")
    shown.tree.unlink(shown.find(f".regfs/cache/{kind}").node, name.encode())


def bytes_on_disk(cache: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())


def test_rm_of_an_image_gives_its_bytes_back_and_the_next_read_fetches_them_again(
    served: Served, built: BuiltImage
) -> None:
    shown = served.show()
    assert shown.read("app/1/rootfs/a") == b"a" * 100_000
    (image,) = shown.names(".regfs/cache/images")
    assert bytes_on_disk(served.cache) > 100_000
    remove(shown, f"images/{image}")
    assert [shown.names(f".regfs/cache/{kind}") for kind in ("images", "layers", "tables", "blobs")] == [[]] * 4
    with pytest.raises(NotFound):
        shown.find(f".regfs/cache/images/{image}")
    assert bytes_on_disk(served.cache) < 100_000
    served.server.seen.clear()
    assert shown.read("app/1/rootfs/a") == b"a" * 100_000
    assert served.server.seen != []
    assert served.show().names(".regfs/cache/images") == [image]


def test_rm_of_an_image_leaves_what_another_one_needs(served: Served) -> None:
    base = layer(file("base", b"base"))
    first, second = (
        served.push("app", tag, image_of(base, layer(file("own", tag.encode() * 9)))) for tag in ("1", "2")
    )
    shown = served.show()
    assert [shown.read(f"app/{tag}/rootfs/own") for tag in ("1", "2")] == [b"1" * 9, b"2" * 9]
    remove(shown, f"images/{first.digest.encoded[:12]}")
    assert shown.names(".regfs/cache/images") == [second.digest.encoded[:12]]
    assert sorted(shown.names(".regfs/cache/layers")) == sorted(each.diff_id.encoded for each in second.layers)
    served.server.seen.clear()
    assert shown.read("app/2/rootfs/base") == b"base"
    assert served.server.seen == []


@pytest.mark.parametrize("kind", ["layers", "tables", "blobs"])
def test_rm_of_a_part_evicts_it_alone(served: Served, built: BuiltImage, kind: str) -> None:
    shown = served.show()
    assert shown.read("app/1/rootfs/b") == b"b"
    names = {each: shown.names(f".regfs/cache/{each}") for each in ("layers", "tables", "blobs")}
    gone = names[kind].pop()
    remove(shown, f"{kind}/{gone}")
    assert {each: shown.names(f".regfs/cache/{each}") for each in names} == names
    assert not any(gone in path.name for path in served.cache.rglob("*"))
    assert shown.read("app/1/rootfs/b") == b"b"


def test_rm_of_what_is_open_says_so_and_evicts_nothing(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    opened = shown.tree.open(shown.find("app/1/rootfs/a").node)
    (image,) = shown.names(".regfs/cache/images")
    before = bytes_on_disk(served.cache)
    for path in (f"images/{image}", f"layers/{built.layers[0].diff_id.encoded}"):
        with pytest.raises(InUse, match=f"{path} stays in the cache: a process has it open"):
            remove(shown, path)
    assert bytes_on_disk(served.cache) == before
    assert opened.read_at(0, 10) == b"a" * 10
    opened.close()
    del opened
    remove(shown, f"images/{image}")


def test_rm_of_what_another_mount_has_open_says_so(served: Served, built: BuiltImage) -> None:
    other = served.show()
    opened = other.tree.open(other.find("app/1/rootfs/a").node)
    shown = served.show()
    with pytest.raises(InUse, match="a process has it open"):
        remove(shown, f"images/{built.digest.encoded[:12]}")
    opened.close()


def test_rm_of_an_image_is_all_or_nothing(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    in_use = served.show().app.layers.index(built.layers[1].diff_id)
    before = bytes_on_disk(served.cache)
    with pytest.raises(InUse):
        remove(shown, f"images/{built.digest.encoded[:12]}")
    assert bytes_on_disk(served.cache) == before
    del in_use


def test_rm_of_what_is_pinned_says_how_to_unpin_it(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    index = shown.app.layers.index_path(built.layers[0].diff_id)
    keep_pin(served.cache, built.digest, "app:1", [index])
    with pytest.raises(InUse, match=r"pinned images stay: app:1; regfs unpin"):
        remove(shown, f"images/{built.digest.encoded[:12]}")
    with pytest.raises(InUse, match=r"it is pinned \(regfs unpin\)"):
        remove(shown, f"layers/{index.stem}")
    assert index.exists()


def test_a_part_that_something_begins_to_use_just_before_it_goes_stays(
    served: Served, built: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    other, opened = served.show(), []
    evict = eviction_by_name._evict

    def evict_when_opened(root: Path, guards: frozenset[Path]) -> eviction_by_name.Gone:
        opened.append(other.tree.open(other.find("app/1/rootfs/a").node))
        return evict(root, guards)

    monkeypatch.setattr(eviction_by_name, "_evict", evict_when_opened)
    with pytest.raises(InUse):
        remove(shown, f"layers/{built.layers[0].diff_id.encoded}")
    opened[0].close()


def test_only_the_user_who_mounts_may_remove_and_nothing_else_can_be(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    (image,) = shown.names(".regfs/cache/images")
    for path, mode in ((".regfs/cache/images", stat.S_IFDIR | 0o755), (f".regfs/cache/images/{image}", 0o100644)):
        found = shown.attributes(path)
        assert (found.mode, found.uid, found.gid) == (mode, os.geteuid(), os.getegid())
        assert shown.tree.may_unlink(shown.find(path).node)
    for directory, name in (
        ("", "app"), (".regfs", "version"), (".regfs/cache", "images"), ("app", "1"), ("app/1", "digest"),
        ("app/1/rootfs", "a"), ("app/1/layers/000/tree", "a"),
    ):  # fmt: skip
        node = shown.find(directory).node
        assert not shown.tree.may_unlink(node)
        assert name == "images" or not shown.tree.may_unlink(shown.find(f"{directory}/{name}").node)
        with under(NON_BLOCKING), pytest.raises(ReadOnly):
            shown.tree.unlink(node, name.encode())


def test_rm_waits_for_the_disk_in_no_thread_that_reads_requests(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    (image,) = shown.names(".regfs/cache/images")
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        remove(shown, f"images/{image}")
    for name in ("0123456789ab", "..", "x" * 200):
        with pytest.raises(NotFound):
            remove(shown, f"images/{name}")
    assert shown.names(".regfs/cache/images") == [image]


def test_a_tree_that_took_nodes_over_evicts_too_and_asks_no_registry_what_may_be_removed(
    served: Served, built: BuiltImage
) -> None:
    first, second = served.show(), served.show(offline=True)
    first.read("app/1/rootfs/b")
    paths = (".regfs/cache/images", f".regfs/cache/images/{built.digest.encoded[:12]}", "app", "app/1", "app/1/layers")
    nodes = {path: first.find(path).node for path in paths}
    first.app.close()
    second.tree.restore(first.tree.snapshot())
    images, image, *others = nodes.values()
    assert (second.tree.may_unlink(images), second.tree.may_unlink(image)) == (True, True)
    second.tree.unlink(images, built.digest.encoded[:12].encode())
    assert list(served.cache.glob("layers/*.index")) == []
    with pytest.raises(RegistryUnavailable):  # without its documents, a part of the image cannot be located
        second.tree.listing(nodes["app/1/layers"])
    for node in others:
        assert not second.tree.may_unlink(node)
        with pytest.raises(ReadOnly):
            second.tree.unlink(node, b"digest")
