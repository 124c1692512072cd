"""Nodes: what is kept for them and for how long, what they cost, and which readers wait for them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regfs.errors import (
    BadContent,
    Interrupted,
    InvalidName,
    NameTooLong,
    NotADirectory,
    NotFound,
    RegfsError,
    StaleNode,
)
from regfs.model.digest import Digest
from regfs.model.node_id import ROOT
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from tests.support.fault_server import Connection, reply
from tests.support.images import BuiltImage, directory, file, image_of, index_of, layer, symlink
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}
ANY_BYTES = b"caf\xe9-\xff\n\x01"


def image(content: bytes = b"content") -> BuiltImage:
    base = layer(directory("d"), file(b"d/" + ANY_BYTES, content), symlink("link", ANY_BYTES))
    return image_of(base, layer(file("top", content)))


class Walker:
    """Looks names up and remembers what it has to give back, as the kernel does."""

    def __init__(self, shown: Shown) -> None:
        self.tree = shown.tree
        self.counts: dict[int, int] = {}

    def find(self, path: bytes) -> int:
        node = ROOT
        for name in path.split(b"/"):
            node = self.tree.lookup(node, name).node
            self.counts[node] = self.counts.get(node, 0) + 1
        return node

    def walk(self, path: bytes) -> int:
        """Look up all that is listed below *path*, open what can be opened; return how many entries there are."""
        node, entries = self.find(path), 0
        try:
            listing = self.tree.listing(node)
        except NotADirectory:
            return 0
        for entry in listing.entries(0, 1000):
            entries += 1 + self.walk(path + b"/" + entry.name)
        return entries

    def forget(self) -> None:
        for node, count in self.counts.items():
            self.tree.forget(node, count)


def open_tables(cache: Path) -> list[str]:
    """Return the files of layers and images below *cache* that this process has open."""
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return [link for link in links if link.startswith(str(cache.resolve())) and link.endswith((".index", ".merged"))]


def test_after_all_is_forgotten_nothing_is_kept(served: Served) -> None:
    built = served.push("app", "one", image())
    served.document("app", "1", index_of(built.descriptor(**AMD64)), INDEX)
    shown = served.show()
    walker = Walker(shown)
    assert walker.walk(b"app") > 50
    assert len(shown.tree._slots.all()) > 4
    assert open_tables(served.cache)
    walker.forget()
    assert list(shown.tree._invented._kept) == [ROOT]
    assert shown.tree._slots.all() == []
    assert open_tables(served.cache) == []


def test_moves_of_a_tag_leave_nothing_behind(served: Served) -> None:
    shown = served.show(tag_ttl_s=0.0)
    for number in range(3):
        served.push("app", "1", image(b"%d" % number))
        walker = Walker(shown)
        walker.walk(b"app/1")
        walker.forget()
    assert list(shown.tree._invented._kept) == [ROOT]
    assert shown.tree._slots.all() == []
    assert open_tables(served.cache) == []


def test_a_look_up_that_fails_is_not_counted(served: Served) -> None:
    built = served.push("app", "1", image())
    del served.registry.repository("app").blobs[str(Digest.of(built.config))]
    shown = served.show()
    tag = shown.find("app/1").node
    kept = set(shown.tree._invented._kept)
    for name in (b"nothing", b"index.json", ANY_BYTES):
        with pytest.raises((NotFound, InvalidName)):
            shown.tree.lookup(tag, name)
    assert set(shown.tree._invented._kept) == kept
    with pytest.raises(BadContent):
        shown.tree.lookup(tag, b"rootfs")
    assert shown.tree._slots.all() == []


def test_a_forgotten_node_is_stale_and_not_another_one(served: Served) -> None:
    served.push("app", "1", image())
    shown = served.show()
    walker = Walker(shown)
    node, row = walker.find(b"app/1/digest"), walker.find(b"app/1/rootfs/d")
    walker.forget()
    for stale in (node, row):
        with pytest.raises(StaleNode):
            shown.tree.attributes(stale)


def test_many_images_cost_little_memory_each(served: Served) -> None:
    built = served.push("app", "1", image())
    document = json.loads(built.manifest)
    for number in range(150):
        other = json.dumps(document | {"annotations": {"number": str(number)}}).encode()
        served.document("app", f"t{number}", other, built.media_type)
    shown = served.show()
    for number in range(150):
        shown.read(f"app/t{number}/manifest.json")
    images = shown.tree._invented._kept[ROOT].node.images  # type: ignore[union-attr]
    assert len(images._images) <= 128
    assert shown.read("app/t0/manifest.json")


def test_names_in_any_bytes_are_found_and_read(served: Served) -> None:
    served.push("app", "1", image())
    shown = served.show()
    assert shown.read(b"app/1/rootfs/d/" + ANY_BYTES) == b"content"
    assert shown.link("app/1/rootfs/link") == ANY_BYTES
    assert shown.read(b"app/1/layers/0/tree/d/" + ANY_BYTES) == b"content"


IMPOSSIBLE = [ANY_BYTES, b"\xff" * 200, b"\xed\xa0\x80", b" ", b":", b"sha256:", b"a@", b"@@"]


@pytest.mark.parametrize("place", ["", "app", "app/1", "app/1/blobs", "app/1/layers", "app/1/manifests", ".regfs"])
def test_impossible_names_do_not_exist_anywhere_and_cost_no_request(served: Served, place: str) -> None:
    built = served.push("app", "one", image())
    served.document("app", "1", index_of(built.descriptor(**AMD64)), INDEX)
    shown = served.show()
    node = shown.find(place).node
    shown.names("app/1/layers")
    asked = len(served.server.seen)
    for name in IMPOSSIBLE:
        with pytest.raises((NotFound, InvalidName)):
            shown.tree.lookup(node, name)
        assert len(served.server.seen) == asked, name


@pytest.mark.parametrize("path", ["", "app", "app/1", "app/1/rootfs"])
def test_a_name_of_more_than_255_bytes_is_too_long(served: Served, path: str) -> None:
    served.push("app", "1", image())
    shown = served.show()
    node = shown.find(path).node
    with pytest.raises(NameTooLong):
        shown.tree.lookup(node, b"x" * 256)


def test_f57_a_table_that_cannot_be_made_is_not_a_missing_name(served: Served) -> None:
    built = served.push("app", "1", image())
    lost = str(built.layers[1].digest)
    content = served.registry.repository("app").blobs.pop(lost)
    shown = served.show(tag_ttl_s=0.0)
    tag = shown.find("app/1").node
    with pytest.raises(BadContent, match=lost):
        shown.tree.lookup(tag, b"rootfs")
    assert "rootfs" in shown.names("app/1")
    rootfs = shown.listed("app/1", b"rootfs").node
    for ask in (shown.tree.attributes, shown.tree.listing, shown.tree.enter):
        with pytest.raises(BadContent, match=lost):
            ask(rootfs)
    with pytest.raises(BadContent):
        shown.tree.lookup(rootfs, b"top")
    assert shown.read(b"app/1/layers/0/tree/d/" + ANY_BYTES) == b"content"
    served.registry.repository("app").blobs[lost] = content
    assert shown.read("app/1/rootfs/top") == b"content"


def test_the_parent_of_a_root_directory_is_the_directory_that_its_table_was_found_in(served: Served) -> None:
    served.push("app", "1", image())
    shown = served.show()
    tag, rootfs = shown.find("app/1").node, shown.find("app/1/rootfs").node
    below = shown.find("app/1/rootfs/d").node
    assert shown.tree.parent(below) == rootfs
    assert shown.tree.parent(rootfs) == tag
    assert shown.tree.parent(shown.find("app").node) == ROOT
    assert shown.tree.parent(ROOT) == ROOT


def test_the_same_image_under_two_names_has_the_same_inode_numbers_and_other_nodes(served: Served) -> None:
    built = served.push("app", "one", image())
    served.push("app", "two", built)
    shown = served.show()
    for name in ("rootfs", "rootfs/d", "rootfs/top", "layers/0/tree/d"):
        assert shown.inode(f"app/one/{name}") == shown.inode(f"app/two/{name}")
        assert shown.find(f"app/one/{name}").node != shown.find(f"app/two/{name}").node


def test_nodes_are_named_by_their_paths_and_what_is_gone_by_its_number(served: Served) -> None:
    built = served.push("lab/app", "1", image())
    shown = served.show()
    named = {path: shown.tree.name_of(shown.find(path).node) for path in ("", "lab/app", "lab/app/1/rootfs")}
    assert named == {"": "/", "lab/app": "/lab/app", "lab/app/1/rootfs": f"/lab/app/1@{built.digest}/rootfs"}
    shown.names("lab/app/1/rootfs")
    below = shown.find(b"lab/app/1/rootfs/d/" + ANY_BYTES).node
    assert os.fsencode(shown.tree.name_of(below)).endswith(b"/rootfs/d/" + ANY_BYTES)
    assert shown.tree.name_of(shown.find("lab/app/1/layers/0/tree/link").node).endswith("/layers/0/tree/link")
    assert shown.tree.name_of(12345) == "node 0x3039"
    assert shown.tree.name_of(below | 0xFFFFFFF).endswith("/rootfs, node 0xfffffff")
    assert shown.tree.name_of(1 << 63) == "node 0x8000000000000000"


class Gate:
    """An action that holds a request until it is opened, and tells that one has come."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: Connection) -> bool:
        self.arrived.set()
        self.opened.wait(100)
        return connection.answer(connection.right())


def test_f59_an_interrupted_reader_leaves_and_the_download_goes_on_for_the_others(served: Served) -> None:
    built = served.push("app", "1", image())
    gate = Gate()
    served.server.on("GET", f"blobs/{built.layers[0].digest}", gate)
    shown = served.show()
    tag = shown.find("app/1").node
    mine, told, got = Deadline(60), [], []

    def interrupted() -> None:
        with under(mine):
            try:
                shown.tree.lookup(tag, b"rootfs")
            except Interrupted as error:
                told.append(error)

    def stays() -> None:
        with under(Deadline(60)):
            got.append(shown.tree.lookup(tag, b"rootfs").node)

    first = threading.Thread(target=interrupted)
    first.start()
    assert gate.arrived.wait(100)
    second = threading.Thread(target=stays)
    second.start()
    mine.cancel()
    first.join(100)
    assert len(told) == 1
    gate.opened.set()
    second.join(100)
    assert len(got) == 1
    assert len(served.server.paths(f"GET.*{built.layers[0].digest}")) == 1


def test_a_slow_registry_blocks_only_readers_that_wait_for_it(served: Served) -> None:
    slow, quick = served.push("app", "slow", image(b"slow")), served.push("app", "quick", image(b"quick"))
    gate = Gate()
    served.server.on("GET", f"manifests/{slow.digest}", gate)
    shown = served.show()
    waiter = threading.Thread(target=lambda: shown.names("app/slow"))
    waiter.start()
    assert gate.arrived.wait(100)
    assert shown.read("app/quick/manifest.json") == quick.manifest
    assert shown.read("app/quick/rootfs/top") == b"quick"
    gate.opened.set()
    waiter.join(100)
    assert not waiter.is_alive()


def test_two_daemons_that_ingest_the_same_layers_at_once_both_serve_them(served: Served) -> None:
    big = os.urandom(300_000)
    served.push("app", "1", image_of(layer(file("big", big)), layer(file("small", b"s"))))
    daemons = [served.show(), served.show()]
    read: list[bytes] = []

    def work(shown: Shown) -> None:
        read.append(shown.read("app/1/rootfs/big") + shown.read("app/1/rootfs/small"))

    threads = [threading.Thread(target=work, args=(shown,)) for shown in daemons for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert read == [big + b"s"] * 6


WORDS = """app other 1 warm digest index.json manifest.json config.json manifests blobs layers 0 tree rootfs d top @
.regfs errors app:1 linux-amd64 ghcr.io nothing"""
NAMES = st.sampled_from([*WORDS.encode().split(), ANY_BYTES])
PATHS = st.lists(NAMES, min_size=1, max_size=7)


def visit(shown: Shown, path: list[bytes]) -> None:
    """Do with each step of *path* whatever can be done with a node, passing over what fails."""
    node, tree = ROOT, shown.tree
    questions: tuple[Callable[[int], object], ...] = (
        tree.attributes, tree.listing, tree.open, tree.xattrs, tree.read_link, tree.parent, tree.enter,
    )  # fmt: skip
    for name in path:
        node = tree.lookup(node, name).node
        for ask in questions:
            try:
                answer = ask(node)
            except RegfsError:
                continue
            if hasattr(answer, "close"):
                answer.close()


def test_a_thread_that_may_not_wait_sends_no_request_from_any_layer_below_the_tree(served: Served) -> None:
    built = served.push("app", "warm", image())
    served.push("other", "1", image(b"other"))
    served.document("app", "1", index_of(built.descriptor(**AMD64)), INDEX)
    shown = served.show(tag_ttl_s=3600.0)
    Walker(shown).walk(b"app/warm")
    asked = len(served.server.seen)

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(PATHS)
    def walk(path: list[bytes]) -> None:
        with under(NON_BLOCKING):
            try:
                visit(shown, path)
            except RegfsError:
                pass
        assert len(served.server.seen) == asked

    walk()


def test_what_is_cached_is_answered_in_a_thread_that_may_not_wait(served: Served) -> None:
    served.push("app", "1", image())
    shown = served.show()
    Walker(shown).walk(b"app")
    asked = len(served.server.seen)
    with under(NON_BLOCKING):
        assert Walker(shown).walk(b"app") > 20
        assert shown.names()
    assert len(served.server.seen) == asked


def test_every_reader_that_waited_gets_the_failure_of_the_registry(served: Served) -> None:
    served.push("app", "1", image())
    served.server.on("GET", "blobs/", reply(404))
    shown = served.show()
    tag = shown.find("app/1").node
    errors: list[RegfsError] = []

    def work() -> None:
        try:
            shown.tree.lookup(tag, b"rootfs")
        except RegfsError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [type(error) for error in errors] == [BadContent] * 8


def test_files_that_follow_in_the_archive_are_read_together(served: Served) -> None:
    names = [f"{number:02}" for number in range(20)]
    base = [file(name, f"{name} of the base".encode()) for name in names]
    big = file("05-big", os.urandom(1 << 19))
    entries = [*base[:6], big, directory("10-directory"), *base[6:]]
    served.push("app", "1", image_of(layer(*entries), layer(file("02", b"hidden"))))
    shown = served.show()
    rootfs = "app/1/rootfs"
    shown.names(rootfs)
    nodes = {shown.find(f"{rootfs}/{name}").node: name for name in names}
    first = shown.find(f"{rootfs}/00").node
    following = dict(shown.tree.read_following(first, 8, bytearray(1 << 17)))
    # The second layer's 02 is what the image shows; the base's is read in vain.
    assert [nodes[node] for node in following if node in nodes] == ["01", "03", "04", "05"]
    # A big file is passed over, and what is behind it comes with the next read.
    fifth = shown.find(f"{rootfs}/05").node
    following |= dict(shown.tree.read_following(fifth, 4, bytearray(1 << 17)))
    assert [nodes[node] for node in following if node in nodes] == ["01", "03", "04", "05", "06", "07", "08"]
    for node, content in following.items():
        if node in nodes:
            assert content == shown.read(f"{rootfs}/{nodes[node]}")
    assert [content for _, content in shown.tree.read_following(first, 8, bytearray(1100))] == [
        b"01 of the base",
        b"02 of the base",
    ]
    assert shown.tree.read_following(first, 8, bytearray(3)) == []
    assert shown.tree.read_following(ROOT, 8, bytearray(1 << 17)) == []
    layer_file = shown.find("app/1/layers/0/tree/00").node
    assert [content for _, content in shown.tree.read_following(layer_file, 2, bytearray(1 << 17))] == [
        b"01 of the base",
        b"02 of the base",
    ]
