"""One layer's files alone: whiteouts as they are stored, links to lower layers as links."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.errors import IsADirectory, NotADirectory, NotASymlink, NotFound
from regfs.rootfs.layer_tree import LayerTree
from regfs.store.layers.content import Nothing
from tests.support.images import TarEntry, directory, file, hardlink, layer, opaque, symlink, whiteout
from tests.support.snapshot import Entry
from tests.support.trees import layer_tree, snapshot_of


def shown(tmp_path: Path, *entries: TarEntry) -> tuple[LayerTree, dict[bytes, Entry]]:
    tree, store = layer_tree(tmp_path, layer(*entries, compression="none"))
    return tree, snapshot_of(tree, store)


def node_of(tree: LayerTree, path: bytes) -> int:
    node = tree.root
    for name in path.split(b"/"):
        node = tree.lookup(node, name)[0]
    return node


def test_files_directories_and_links_are_as_in_the_layer(tmp_path: Path) -> None:
    tree, found = shown(
        tmp_path,
        directory("d", mode=0o1777, xattrs={"user.x": b"1"}),
        file("d/f", b"content", uid=3),
        hardlink("h", "d/f"),
        symlink("s", "/nowhere"),
    )
    assert list(found) == [b".", b"d", b"d/f", b"h", b"s"]
    assert (found[b"d"].mode, found[b"d"].xattrs) == ("1777", (("user.x", b"1"),))
    assert found[b"d/f"] == found[b"h"]
    assert (found[b"h"].group, found[b"h"].links, found[b"h"].uid) == (b"d/f", 2, 3)
    assert tree.target(node_of(tree, b"s")) == b"/nowhere"


def test_a_node_has_its_path(tmp_path: Path) -> None:
    tree, found = shown(tmp_path, file("d/e/f"), symlink("s", "/nowhere"), whiteout("d/gone"))
    assert [tree.path(node_of(tree, path)) for path in found if path != b"."] == [
        path for path in found if path != b"."
    ]
    assert tree.path(tree.root) == b""


def test_whiteouts_are_shown_as_they_are_stored(tmp_path: Path) -> None:
    _, found = shown(tmp_path, whiteout("a/gone"), opaque("b"), directory(".wh.dir", mode=0o700))
    assert list(found) == [b".", b".wh.dir", b"a", b"a/.wh.gone", b"b", b"b/.wh..wh..opq"]
    assert (found[b"a/.wh.gone"].kind, found[b".wh.dir"].kind) == ("-", "d")


def test_a_hard_link_to_a_lower_layer_is_a_relative_symbolic_link(tmp_path: Path) -> None:
    tree, found = shown(tmp_path, hardlink("d/e/link", "usr/bin/tool"), hardlink("top", "d/e/link"), file("other"))
    link, top = found[b"d/e/link"], found[b"top"]
    assert (link.kind, link.mode, link.target, link.links) == ("l", "0777", b"../../usr/bin/tool", 1)
    assert (top.kind, top.target) == ("l", b"usr/bin/tool")
    node = node_of(tree, b"d/e/link")
    assert tree.content(node) == Nothing()
    with pytest.raises(NotADirectory):
        tree.count(node)


def test_wrong_questions_get_definite_answers(tmp_path: Path) -> None:
    tree, _ = shown(tmp_path, file("f"), directory("d"))
    for name in (b"none", b""):
        with pytest.raises(NotFound):
            tree.lookup(tree.root, name)
    with pytest.raises(NotADirectory):
        tree.lookup(node_of(tree, b"f"), b"x")
    with pytest.raises(NotASymlink):
        tree.target(node_of(tree, b"f"))
    with pytest.raises(IsADirectory):
        tree.content(node_of(tree, b"d"))
    with pytest.raises(NotFound):
        tree.attributes(999)
    assert tree.parent(tree.root) == tree.root
