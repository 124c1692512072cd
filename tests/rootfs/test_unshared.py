"""Directories that one layer alone has are read from its index, and show what they would if they were merged."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, reject, settings

from regfs.errors import BadLayer
from regfs.model.attributes import Attributes, is_directory
from regfs.store.images.merged_table import MergedRow
from tests.rootfs.test_merge_against_umoci import images
from tests.support.images import TarEntry, directory, file, hardlink, layer, symlink, whiteout
from tests.support.snapshot import Entry
from tests.support.trees import MergedImage, Stack

BASE = [
    directory("usr"),
    directory("usr/lib"),
    file("usr/lib/libc.so", b"c"),
    directory("usr/share"),
    directory("usr/share/doc"),
    *(file(f"usr/share/doc/{number}") for number in range(50)),
]


def names_in_table(image: MergedImage) -> set[bytes]:
    return {name for _, name, _, _ in image.merged.entries()}


def node_of(image: MergedImage, path: bytes) -> int:
    node = image.rootfs.root
    for name in path.split(b"/"):
        node = image.rootfs.lookup(node, name)[0]
    return node


def links(image: MergedImage, path: bytes) -> set[int]:
    """Return the link counts that look-up, listing and attributes give for *path*."""
    parent, name = path.rsplit(b"/", 1)
    node, found = image.rootfs.lookup(node_of(image, parent), name)
    listed = {name: packed for name, _, packed in image.rootfs.children(node_of(image, parent), 0, 100)}
    scanned = {name: packed for _, name, _, packed in image.rootfs.entries()}
    every = (found, listed[name], scanned[name], image.rootfs.attributes(node))
    return {Attributes.unpack(packed).nlink for packed in every}


def test_the_merged_table_has_the_directories_that_layers_share_alone(stack: Stack) -> None:
    assert names_in_table(stack(BASE)) == {b"usr"}
    assert names_in_table(stack(BASE, [file("usr/lib/libm.so")])) == {b"usr", b"lib", b"share", b"libc.so", b"libm.so"}


@pytest.mark.parametrize(
    "more",
    [
        [whiteout("usr/share/doc/none")],
        [file("usr/share/doc/implied/x")],
        [hardlink("usr/share/doc/link", "elsewhere")],
    ],
)
def test_a_directory_whose_index_says_less_than_the_tree_shows_is_in_the_table(
    stack: Stack, more: list[TarEntry]
) -> None:
    image = stack([file("elsewhere")], [*BASE, *more])
    assert {b"share", b"doc", b"0", b"49"} <= names_in_table(image)
    assert b".wh.none" not in {name for name, _, _ in image.rootfs.children(node_of(image, b"usr/share/doc"), 0, 100)}


def test_a_directory_behind_a_link_of_a_lower_layer_shows_its_entries_once(stack: Stack) -> None:
    image = stack([*BASE, symlink("lib", "usr/lib")], [directory("lib/new"), file("lib/new/x"), file("lib/y")])
    found = set(image.snapshot())
    assert {b"usr/lib/new/x", b"usr/lib/y", b"usr/lib/libc.so"} <= found
    assert not any(path.startswith(b"lib/") for path in found)


def test_a_hard_link_that_an_upper_layer_deletes_is_not_counted_in_the_directories_of_one_layer(stack: Stack) -> None:
    base = [directory("one"), file("one/x"), directory("two"), hardlink("two/y", "one/x"), hardlink("two/z", "one/x")]
    assert links(stack(base), b"two/z") == {3}
    assert links(stack(base, [whiteout("one/x")]), b"two/z") == {2}
    assert links(stack(base, [hardlink("more", "one/x")]), b"two/z") == {4}


def test_a_listing_goes_on_from_any_position(stack: Stack) -> None:
    image = stack(BASE)
    node = node_of(image, b"usr/share/doc")
    every = image.rootfs.children(node, 0, 100)
    assert [name for name, _, _ in every] == sorted(b"%d" % number for number in range(50))
    positions = [*range(0, 60, 7), *range(60), *range(59, -1, -3)]
    random.Random(1).shuffle(positions)
    for start in [*range(0, 60, 7), *positions]:
        assert image.rootfs.children(node, start, 7) == every[start : start + 7]


def test_the_entries_of_a_directory_that_the_merge_invented_come_behind_its_name(stack: Stack) -> None:
    image = stack([symlink("lib", "usr/lib")], [directory("lib/x"), file("lib/x/f"), directory("z"), file("z/f")])
    named = {image.rootfs.root}
    for parent, _, node, packed in image.rootfs.entries():
        assert parent in named
        named |= {node} if is_directory(packed) else set()
    assert len(named) == 5


def walked(image: MergedImage) -> list[MergedRow]:
    rows: list[MergedRow] = []
    pending = [image.rootfs.root]
    while pending:
        parent = pending.pop()
        for name, node, packed in image.rootfs.children(parent, 0, 1000):
            rows.append((parent, name, node, packed))
            pending += [node] if is_directory(packed) else []
    return rows


def directories(snapshot: dict[bytes, Entry]) -> list[TarEntry]:
    return [
        directory(
            path, mode=int(entry.mode, 8), uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns,
            xattrs=dict(entry.xattrs),
        )
        for path, entry in sorted(snapshot.items()) if entry.kind == "d"
    ]  # fmt: skip


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(images)
def test_a_tree_is_the_same_if_each_of_its_directories_is_shared(image: list[list[TarEntry]]) -> None:
    built = [layer(*entries, compression="none") for entries in image]
    with tempfile.TemporaryDirectory(prefix="regfs-unshared-") as at, ExitStack() as stack:
        try:
            first = MergedImage(Path(at, "first"), *built)
        except BadLayer:
            reject()
        stack.callback(first.close)
        shown = first.snapshot()
        assume(not any(b".wh." in path for path in shown))  # shown below a marker: again it would be a whiteout
        second = MergedImage(Path(at, "second"), *built, layer(*directories(shown), compression="none"))
        stack.callback(second.close)
        assert second.snapshot() == shown
        assert set(second.merged.unshared()) == set()
        assert sorted(first.rootfs.entries()) == sorted(walked(first))
        assert sorted(second.rootfs.entries()) == sorted(walked(second))
