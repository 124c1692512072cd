"""What a stack of layers looks like: one rule of the merge a test."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from regfs.errors import BadLayer, CacheFailure, IsADirectory, NotADirectory, NotASymlink, NotFound, TooLarge
from regfs.model.attributes import Attributes
from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT
from regfs.rootfs.merge import merge, merge_files
from regfs.rootfs.rootfs import Rootfs
from regfs.store.images.merged_table import MergedTable
from regfs.store.layers.content import Nothing, Span
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.tables.open_tables import OpenTables
from tests.support.images import (
    MTIME_NS,
    BuiltLayer,
    TarEntry,
    device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.support.snapshot import Entry
from tests.support.steps import steps
from tests.support.trees import MergedImage, Stack, snapshot_of

EPOCH = 0


def tree(image: MergedImage) -> dict[str, str]:
    """Return path → type for directories and others, target for links, and content for files of one line."""
    contents: dict[str, str] = {}
    for path, entry in image.snapshot().items():
        if path != b".":
            shown = {"d": "/", "l": f"-> {entry.target.decode()}"}.get(entry.kind, entry.kind)
            contents[path.decode()] = read(image, path) if entry.kind == "-" else shown
    return contents


def node_of(image: MergedImage, path: bytes) -> int:
    node = image.rootfs.root
    for name in path.split(b"/"):
        node = image.rootfs.lookup(node, name)[0]
    return node


def read(image: MergedImage, path: bytes) -> str:
    opened = image.store.open_content(image.rootfs.content(node_of(image, path)))
    content = opened.read_at(0, 1 << 20)
    opened.close()
    return content.decode()


def entry(image: MergedImage, path: str) -> Entry:
    return image.snapshot()[path.encode()]


# One path in several layers


def test_a_node_has_its_path_in_whatever_layer_it_is(stack: Stack) -> None:
    image = stack([file("d/low"), file("d/both")], [file("d/both"), file("d/e/high"), symlink("s", "d")])
    paths = [path for path in image.snapshot() if path != b"."]
    assert [image.rootfs.path(node_of(image, path)) for path in paths] == paths
    assert image.rootfs.path(image.rootfs.root) == b""


def test_the_topmost_layer_wins(stack: Stack) -> None:
    image = stack([file("a", b"low"), file("b", b"low")], [file("a", b"high", mode=0o600, uid=7)])
    assert tree(image) == {"a": "high", "b": "low"}
    assert (entry(image, "a").mode, entry(image, "a").uid) == ("0600", 7)


def test_directories_are_merged_and_the_topmost_gives_the_attributes(stack: Stack) -> None:
    image = stack(
        [directory("d", mode=0o700, uid=1, xattrs={"user.low": b"1"}), file("d/low", b"1")],
        [directory("d", mode=0o3755, gid=2, mtime_ns=5, xattrs={"user.high": b"\0"}), file("d/high", b"2")],
    )
    assert tree(image) == {"d": "/", "d/low": "1", "d/high": "2"}
    merged = entry(image, "d")
    assert (merged.mode, merged.uid, merged.gid, merged.mtime_ns) == ("3755", 0, 2, 5)
    assert merged.xattrs == (("user.high", b"\0"),)


def test_a_directory_that_is_only_implied_keeps_the_attributes_of_below(stack: Stack) -> None:
    image = stack([directory("d", mode=0o700, mtime_ns=5, xattrs={"user.x": b"1"})], [file("d/new", b"n")])
    merged = entry(image, "d")
    assert (merged.mode, merged.mtime_ns, merged.xattrs) == ("0700", 5, (("user.x", b"1"),))
    assert node_of(image, b"d") >> LAYER_SHIFT == 0


def test_the_node_of_a_merged_directory_is_the_topmost_row_that_describes_it(stack: Stack) -> None:
    image = stack([file("i/a"), directory("e")], [file("i/b"), directory("e")], [file("i/c"), file("e/c")])
    assert [node_of(image, path) >> LAYER_SHIFT for path in (b"i", b"e")] == [2, 1]


def test_a_file_hides_the_directory_below_it(stack: Stack) -> None:
    image = stack([directory("d"), file("d/x"), file("d/e/y")], [file("d", b"file")], [file("other", b"")])
    assert tree(image) == {"d": "file", "other": ""}


def test_a_directory_over_a_file_hides_what_the_file_hid(stack: Stack) -> None:
    image = stack([file("d/x", b"")], [file("d")], [file("d2"), directory("d"), file("d/y", b"y")])
    assert tree(image) == {"d": "/", "d/y": "y", "d2": ""}


def test_a_directory_entry_takes_the_place_of_a_symbolic_link(stack: Stack) -> None:
    image = stack([file("real/x", b"x"), symlink("link", "real")], [directory("link"), file("link/y", b"y")])
    assert tree(image) == {"real": "/", "real/x": "x", "link": "/", "link/y": "y"}


# Whiteouts


def test_a_whiteout_hides_a_file_and_is_not_shown(stack: Stack) -> None:
    assert tree(stack([file("a"), file("b", b"b")], [whiteout("a")])) == {"b": "b"}


def test_a_whiteout_hides_a_whole_directory(stack: Stack) -> None:
    assert tree(stack([file("d/e/f"), file("d/g")], [file("x", b""), whiteout("d")])) == {"x": ""}


def test_what_a_whiteout_hid_can_come_again_above(stack: Stack) -> None:
    image = stack([file("d/low", b"1")], [whiteout("d")], [file("d/high", b"2")])
    assert tree(image) == {"d": "/", "d/high": "2"}


@pytest.mark.parametrize("marker_first", [True, False])
def test_a_whiteout_leaves_its_own_layer_alone_wherever_it_stands(stack: Stack, marker_first: bool) -> None:
    marker, own = whiteout("d"), [directory("d", mode=0o711), file("d/own", b"o")]
    image = stack([file("d/low"), file("d/e/low")], [marker, *own] if marker_first else [*own, marker])
    assert tree(image) == {"d": "/", "d/own": "o"}
    assert entry(image, "d").mode == "0711"


def test_an_implied_directory_keeps_attributes_only_from_a_directory_that_was_still_there(stack: Stack) -> None:
    base = [directory("d", mode=0o700), file("d/low")]
    assert entry(stack(base, [whiteout("d"), file("d/own")]), "d").mode == "0755"
    assert entry(stack(base, [file("d/own"), whiteout("d")]), "d").mode == "0700"


@pytest.mark.parametrize("marker_first", [True, False])
def test_an_opaque_directory_hides_what_is_below_it(stack: Stack, marker_first: bool) -> None:
    own = file("d/own", b"o")
    base = [directory("d", mode=0o700), file("d/low"), file("d/e/low"), file("d/own", b"low")]
    image = stack(base, [opaque("d"), own] if marker_first else [own, opaque("d")])
    assert tree(image) == {"d": "/", "d/own": "o"}
    assert entry(image, "d").mode == "0700"


def test_an_opaque_root_hides_everything_below(stack: Stack) -> None:
    image = stack([directory(".", mode=0o711), file("a"), file("d/b")], [opaque(""), file("d/c", b"c")])
    assert tree(image) == {"d": "/", "d/c": "c"}
    assert entry(image, ".").mode == "0711"


def test_a_directory_of_whiteouts_alone_makes_no_directory(stack: Stack) -> None:
    image = stack([file("f", b"f")], [file("d/e/.wh.x"), file("f2/.wh..wh..opq"), file("f/.wh.x")])
    assert tree(image) == {"f": "f"}


def test_a_whiteout_may_be_stored_as_any_type(stack: Stack) -> None:
    image = stack(
        [file("a"), file("b"), file("c"), file("d/x")],
        [hardlink(".wh.a", "c"), symlink(".wh.b", "c"), device(".wh.c", 0, 0), directory(".wh.d")],
    )
    assert tree(image) == {}


def test_bookkeeping_of_aufs_is_not_shown(stack: Stack) -> None:
    # umoci and containerd unpack what is inside; it means nothing to anybody but AUFS.
    entries = [file(".wh..wh.aufs"), directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file("a", b"a")]
    assert tree(stack(entries)) == {"a": "a"}
    assert tree(stack([file("b", b"b")], entries)) == {"a": "a", "b": "b"}


def test_a_directory_whose_name_begins_like_a_whiteout_is_one_like_any_other(stack: Stack) -> None:
    shown = {".wh.d": "/", ".wh.d/x": "", "e": "e"}
    assert tree(stack([file("d/low"), file("e", b"e")], [directory(".wh.d"), file(".wh.d/x")])) == shown
    assert tree(stack([file("d/low"), file("e", b"e")], [file(".wh.d/x")])) == shown | {"d": "/", "d/low": ""}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_a_whiteout_of_no_name_is_refused(stack: Stack, name: str) -> None:
    # umoci would remove the directory around it, or the one above; containerd refuses the layer.
    with pytest.raises(BadLayer):
        stack([file("d/x")], [file(f"d/{name}")])


def test_a_whiteout_of_nothing_does_nothing(stack: Stack) -> None:
    assert tree(stack([file("a", b"a")], [whiteout("b"), whiteout("c/d")])) == {"a": "a"}


def test_a_whiteout_below_a_link_of_a_lower_layer_works_where_the_link_leads(stack: Stack) -> None:
    image = stack([file("real/x"), file("real/y", b"y"), symlink("link", "real")], [whiteout("link/x")])
    assert tree(image) == {"real": "/", "real/y": "y", "link": "-> real"}


# Parents that are links


@pytest.mark.parametrize("target", ["real", "/real", "../../real", "other/../real"])
def test_entries_go_through_a_link_of_a_lower_layer_and_stay_in_the_root(stack: Stack, target: str) -> None:
    base = [directory("real", mode=0o700), symlink("link", target), directory("other")]
    image = stack(base, [file("link/x", b"x"), file("link/d/y", b"y")])
    assert tree(image) == {
        "real": "/", "real/x": "x", "real/d": "/", "real/d/y": "y", "link": f"-> {target}", "other": "/",
    }  # fmt: skip
    assert entry(image, "real").mode == "0700"


def test_a_dangling_link_is_followed_and_the_directories_made(stack: Stack) -> None:
    image = stack([symlink("link", "new/dir")], [file("link/x", b"x")])
    assert tree(image) == {"link": "-> new/dir", "new": "/", "new/dir": "/", "new/dir/x": "x"}
    assert entry(image, "new").mode == "0755"
    assert node_of(image, b"new") >> LAYER_SHIFT == INVENTED_LAYER
    assert node_of(image, b"new/dir") >> LAYER_SHIFT == 1


def test_the_later_entry_wins_where_two_paths_lead_to_one_place(stack: Stack) -> None:
    base = [directory("real"), symlink("link", "real")]
    assert tree(stack(base, [file("real/x", b"1"), file("link/x", b"2")]))["real/x"] == "2"
    assert tree(stack(base, [file("link/x", b"1"), file("real/x", b"2")]))["real/x"] == "2"
    assert (
        tree(stack(base, [file("real/d/x", b"1"), file("link/d/x", b"2"), file("real/d/y", b"3")]))["real/d/y"] == "3"
    )


def test_a_link_that_its_layer_deletes_was_followed_until_then(stack: Stack) -> None:
    base = [directory("real"), symlink("link", "real")]
    image = stack(base, [file("link/x", b"x"), whiteout("link"), file("link/y", b"y")])
    assert tree(image) == {"real": "/", "real/x": "x", "link": "/", "link/y": "y"}


def test_links_without_an_end_are_refused(stack: Stack) -> None:
    with pytest.raises(BadLayer, match=r"layer 1: a/x: .*symbolic links"):
        stack([symlink("a", "b"), symlink("b", "a")], [file("a/x")])


def test_a_link_to_a_name_that_linux_does_not_have_is_refused(stack: Stack) -> None:
    with pytest.raises(BadLayer, match="more than 255 bytes"):
        stack([symlink("link", "n" * 256)], [file("link/x")])


def test_an_entry_below_a_file_of_a_lower_layer_is_refused(stack: Stack) -> None:
    with pytest.raises(BadLayer, match=r"layer 1: f/x: 'f' is not a directory"):
        stack([file("f")], [file("f/x")])
    with pytest.raises(BadLayer, match=r"layer 2: link/x: 'link' leads to"):
        stack([file("f")], [symlink("link", "f")], [file("link/x")])


# Hard links


def test_names_of_one_inode_are_one_node_with_their_number(stack: Stack) -> None:
    image = stack([file("a", b"1"), hardlink("b", "a"), hardlink("d/c", "b")])
    assert {entry(image, path).group for path in ("a", "b", "d/c")} == {b"a"}
    assert entry(image, "a").links == 3


def test_names_that_an_upper_layer_takes_are_not_counted(stack: Stack) -> None:
    image = stack([file("a", b"1"), hardlink("b", "a"), hardlink("c", "a")], [whiteout("a")], [file("b", b"2")])
    assert tree(image) == {"b": "2", "c": "1"}
    assert entry(image, "c").links == 1
    assert Attributes.unpack(image.rootfs.attributes(node_of(image, b"c"))).nlink == 1


def test_a_hard_link_to_a_lower_layer_shares_its_inode(stack: Stack) -> None:
    image = stack([file("low", b"1", uid=5)], [hardlink("high", "low", uid=9)], [hardlink("top", "high")])
    assert tree(image) == {"low": "1", "high": "1", "top": "1"}
    assert entry(image, "top") == entry(image, "low")
    assert (entry(image, "low").links, entry(image, "low").uid) == (3, 5)


def test_a_hard_link_keeps_the_lower_file_that_its_layer_replaces_or_deletes_later(stack: Stack) -> None:
    base = [file("low", b"old")]
    assert tree(stack(base, [hardlink("kept", "low"), file("low", b"new")])) == {"kept": "old", "low": "new"}
    assert tree(stack(base, [hardlink("kept", "low"), whiteout("low")])) == {"kept": "old"}


@pytest.mark.parametrize("taken", [whiteout("low"), file("low", b"new"), file("first", b"other")])
def test_a_hard_link_to_such_a_link_shares_its_file_whatever_became_of_the_names(stack: Stack, taken: TarEntry) -> None:
    image = stack([file("low", b"old")], [hardlink("first", "low"), taken, hardlink("second", "first")])
    expected = tree(stack([file("low", b"old")], [hardlink("first", "low"), taken]))
    assert tree(image) == expected | {"second": expected["first"]}
    assert entry(image, "second").links == entry(image, "first").links


def test_a_link_that_outlives_the_name_it_was_made_with_shares_the_file_below(stack: Stack) -> None:
    upper = [hardlink("first", "low"), hardlink("second", "first"), file("first", b"own")]
    image = stack([file("low", b"old")], upper)
    assert tree(image) == {"low": "old", "second": "old", "first": "own"}
    assert (entry(image, "low").links, entry(image, "second").group) == (2, b"low")


def test_a_hard_link_to_a_symbolic_link_is_one(stack: Stack) -> None:
    image = stack([symlink("s", "nowhere")], [hardlink("h", "s")])
    assert tree(image) == {"s": "-> nowhere", "h": "-> nowhere"}
    assert entry(image, "s").links == 2


def test_the_path_of_a_hard_links_target_goes_through_links(stack: Stack) -> None:
    image = stack([file("real/f", b"1"), symlink("link", "/real")], [hardlink("h", "link/f")])
    assert tree(image)["h"] == "1"


def test_a_hard_link_to_nothing_is_refused(stack: Stack) -> None:
    for upper in ([hardlink("h", "none")], [whiteout("low"), hardlink("h", "low")]):
        with pytest.raises(BadLayer, match=r"layer 1: h: a hard link to '(none|low)', which neither"):
            stack([file("low")], upper)


def test_a_hard_link_to_a_directory_is_refused(stack: Stack) -> None:
    with pytest.raises(BadLayer, match=r"layer 1: h: a hard link to 'd', which is a directory"):
        stack([directory("d")], [hardlink("h", "d")])


def test_a_hard_link_over_its_own_target_is_refused(stack: Stack) -> None:
    with pytest.raises(BadLayer):
        stack([file("a")], [hardlink("a", "a")])


# The root, and the tree as a whole


def test_the_root_is_the_topmost_one_described(stack: Stack) -> None:
    image = stack([directory(".", mode=0o700, uid=3, mtime_ns=9)], [file("x")])
    assert (entry(image, ".").mode, entry(image, ".").uid, entry(image, ".").mtime_ns) == ("0700", 3, 9)
    assert image.rootfs.root >> LAYER_SHIFT == 0


def test_implied_directories_take_group_and_setgid_bit_from_the_one_they_are_made_in(stack: Stack) -> None:
    image = stack([directory("g", mode=0o2750, gid=7), file("g/a/b/f")], [file("g/a/c/f"), file("g/d/f"), file("h/f")])
    shown = {path: (entry(image, path).mode, entry(image, path).gid) for path in ("g/a/b", "g/a/c", "g/d", "h")}
    assert shown == {"g/a/b": ("2755", 7), "g/a/c": ("2755", 7), "g/d": ("2755", 7), "h": ("0755", 0)}


def test_a_root_that_no_layer_describes_is_0755_of_1970(stack: Stack) -> None:
    image = stack([file("x")], [file("y")])
    root = entry(image, ".")
    assert (root.mode, root.uid, root.gid, root.mtime_ns) == ("0755", 0, 0, EPOCH)
    assert image.rootfs.root >> LAYER_SHIFT == 1


def test_an_image_without_layers_is_an_empty_directory(stack: Stack) -> None:
    image = stack()
    assert list(image.snapshot()) == [b"."]
    assert image.rootfs.xattrs(image.rootfs.root) == {}


def test_every_type_and_any_bytes_come_through(stack: Stack) -> None:
    image = stack(
        [device("c", 259, 300, mode=0o620), device("b", 7, 1, block=True), fifo("p"), file(b"\xff\n\x01", b"raw")],
        [directory("over")],
    )
    assert {path: entry.kind for path, entry in image.snapshot().items()} == {
        b".": "d", b"c": "c", b"b": "b", b"p": "p", b"\xff\n\x01": "-", b"over": "d",
    }  # fmt: skip
    assert entry(image, "c").device == 259 << 8 | 300 & 0xFF | (300 & ~0xFF) << 12
    assert entry(image, "c").mtime_ns == MTIME_NS


def test_a_tree_may_be_deeper_than_python_recurses(stack: Stack) -> None:
    depth = 2000
    path = "/".join("d" * depth)
    image = stack([file(f"{path}/low")], [file(f"{path}/high"), whiteout(f"{path}/low")], [whiteout("d/d")])
    assert tree(image) == {"d": "/"}
    below = stack([file(f"{path}/low")], [file(f"{path}/high")])
    node = below.rootfs.root
    for _ in range(depth):
        node, _ = below.rootfs.lookup(node, b"d")
    assert [name for name, _, _ in below.rootfs.children(node, 0, 9)] == [b"high", b"low"]


def test_a_merge_is_the_same_every_time(stack: Stack, tmp_path: Path) -> None:
    image = stack([file("a"), symlink("s", "x/y")], [file("s/b"), file("d/e")], [opaque("d"), file("d/f")])
    again = tmp_path / "again" / "merged"
    merge_files([index.path for index in image.indexes], again)
    dumps = [list(sqlite3.connect(path).iterdump()) for path in (again, tmp_path / "image-0" / "merged")]
    assert dumps[0] == dumps[1]


def test_names_that_a_layer_hides_are_shown_of_the_layers_below(stack: Stack, tmp_path: Path) -> None:
    lower = [file("mark", b"lower"), file("d/mark", b"lower")]
    image = stack(lower, [file("mark", b"upper"), file("d/mark", b"upper"), directory("e"), file("e/f")])
    merge_files([index.path for index in image.indexes], tmp_path / "without", hidden={1: frozenset((b"mark", b"e"))})
    with closing(MergedTable.open(tmp_path / "without")) as merged:
        rootfs = Rootfs(merged, image.indexes, diff_ids=image.rootfs.diff_ids, tables=OpenTables())
        shown = snapshot_of(rootfs, image.store)
    assert shown[b"mark"] == stack(lower).snapshot()[b"mark"]
    assert {path: entry for path, entry in shown.items() if path != b"mark"} == {
        path: entry for path, entry in image.snapshot().items() if path != b"mark"
    }


def test_names_that_the_base_layer_hides_are_shown_nowhere(stack: Stack, tmp_path: Path) -> None:
    image = stack([file("mark"), directory("d"), file("d/mark"), hardlink("d/link", "d/mark")], [file("d/more")])
    merge_files([index.path for index in image.indexes], tmp_path / "without", hidden={0: frozenset((b"mark",))})
    with closing(MergedTable.open(tmp_path / "without")) as merged:
        rootfs = Rootfs(merged, image.indexes, diff_ids=image.rootfs.diff_ids, tables=OpenTables())
        assert snapshot_of(rootfs, image.store) == {
            path: entry for path, entry in image.snapshot().items() if path != b"mark"
        }


# What the tree answers to other questions


def test_contents_are_where_the_deciding_layer_put_them(stack: Stack) -> None:
    image = stack([file("empty"), file("small", b"s")], [file("big", b"b" * (1 << 18)), device("c", 1, 3)])
    contents = {name: image.rootfs.content(node_of(image, name)) for name in (b"empty", b"small", b"big", b"c")}
    assert isinstance(contents[b"empty"], Nothing)
    assert isinstance(contents[b"small"], Span)
    assert isinstance(contents[b"big"], Span)
    assert isinstance(contents[b"c"], Nothing)


def test_wrong_questions_get_definite_answers(stack: Stack) -> None:
    image = stack([file("f"), symlink("gone/s", "x")], [symlink("l", "new/dir"), file("l2")], [file("l/f")])
    rootfs, root = image.rootfs, image.rootfs.root
    with pytest.raises(NotFound):
        rootfs.lookup(root, b"none")
    for ask in (lambda node: rootfs.lookup(node, b"x"), rootfs.count, rootfs.parent):
        with pytest.raises(NotADirectory):
            ask(node_of(image, b"f"))
    for path in (b"f", b"gone", b"new"):
        with pytest.raises(NotASymlink):
            rootfs.target(node_of(image, path))
    for path in (b"gone", b"new"):
        with pytest.raises(IsADirectory):
            rootfs.content(node_of(image, path))
    with pytest.raises(NotFound):
        rootfs.attributes(9 << LAYER_SHIFT)
    assert rootfs.parent(root) == root


def test_a_refused_image_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BadLayer):
        MergedImage(tmp_path / "cache", layer(hardlink("a", "b"), compression="none"))
    assert not list((tmp_path / "cache").glob("*merged*"))


def test_a_destination_that_cannot_be_written_is_a_cache_failure(tmp_path: Path, stack: Stack) -> None:
    image = stack([file("a")])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheFailure):
        merge(image.indexes, tmp_path / "file" / "merged")


def test_more_layers_than_node_keys_can_tell_are_too_many(tmp_path: Path, stack: Stack) -> None:
    index = stack([file("a")]).indexes[0]
    with pytest.raises(TooLarge):
        merge([index] * INVENTED_LAYER, tmp_path / "merged")


def test_a_hundred_layers_are_merged(stack: Stack) -> None:
    image = stack(*[[file("same", b"%d" % n), file(f"own-{n}"), whiteout(f"own-{n - 2}")] for n in range(100)])
    assert tree(image) == {"same": "99", "own-98": "", "own-99": ""}


def built(name: str) -> BuiltLayer:
    return layer(file(name), compression="none")


def test_trees_are_opened_again_without_a_merge(tmp_path: Path) -> None:
    image = MergedImage(tmp_path, built("a"), built("b"))
    before = image.snapshot()
    image.close()
    layers = [LayerIndex.open(index.path) for index in image.indexes]
    with pytest.raises(NotFound):
        MergedTable.open(tmp_path / "other")
    diff_ids = [built("a").diff_id, built("b").diff_id]
    rootfs = Rootfs(MergedTable.open(tmp_path / "merged"), layers, diff_ids=diff_ids, tables=OpenTables())
    assert [name for name, _, _ in rootfs.children(rootfs.root, 0, 9)] == sorted(before)[1:]


def test_a_name_means_the_same_however_often_names_beside_it_are_asked_for(stack: Stack) -> None:
    names = [f"file-{number:02}" for number in range(30)]
    image = stack([directory("d"), *(file(f"d/{name}") for name in names)], [whiteout("d/file-07"), file("d/new")])
    where, _ = image.rootfs.lookup(image.rootfs.root, b"d")
    shown = {name: (node, attributes) for name, node, attributes in image.rootfs.children(where, 0, 100)}
    for _ in range(3):
        for name in [*names, "new", "none"]:
            if name in ("file-07", "none"):
                with pytest.raises(NotFound):
                    image.rootfs.lookup(where, name.encode())
            else:
                assert image.rootfs.lookup(where, name.encode()) == shown[name.encode()]


def deep_image(count: int, entry: Callable[[str], TarEntry], *, depth: int) -> tuple[BuiltLayer, BuiltLayer]:
    """Return a layer of *count* files far below the root, and one of *count* entries that *entry* makes of them."""
    paths = ["/".join(["d"] * depth) + f"/f{number}" for number in range(count)]
    return layer(*map(file, paths), compression="none"), layer(*map(entry, paths), compression="none")


def cost_of_merging(directory: Path, *layers: BuiltLayer) -> int:
    """Return the steps of merging *layers*."""
    image = MergedImage(directory, *layers)
    try:
        return steps(lambda: merge(image.indexes, directory / "again"))
    finally:
        image.close()


@pytest.mark.parametrize("entry", [whiteout, file])
def test_an_entry_costs_the_same_however_deep_it_lies(tmp_path: Path, entry: Callable[[str], TarEntry]) -> None:
    def cost(depth: int) -> int:
        few = cost_of_merging(tmp_path / f"{depth} few", *deep_image(10, entry, depth=depth))
        return cost_of_merging(tmp_path / f"{depth} many", *deep_image(60, entry, depth=depth)) - few

    assert cost(100) < cost(10) * 1.2


def test_opaque_markers_at_each_depth_cost_no_walk_each(tmp_path: Path) -> None:
    def cost(depth: int) -> int:
        paths = ["/".join(["d"] * each) for each in range(depth, 0, -1)]
        lower = layer(*(file(f"{path}/old") for path in paths), compression="none")
        upper = layer(file(f"{paths[0]}/new"), *map(opaque, paths), compression="none")
        return cost_of_merging(tmp_path / str(depth), lower, upper)

    assert cost(200) < cost(50) * 6
