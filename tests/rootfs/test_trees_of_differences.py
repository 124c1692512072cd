"""What was added, removed and changed, as trees: those of a walk of both images, and of nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regfs.errors import BadLayer, TooLarge
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.trees_of_differences import Changed, DifferingTree, OneSided
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from regfs.store.tables.open_tables import OpenTables
from tests.rootfs.test_differences import decided, layer_lists, walked
from tests.support.images import BuiltLayer, directory, file, hardlink, layer, symlink, whiteout
from tests.support.snapshot import Entry
from tests.support.trees import MergedImage, ingested, snapshot_of

Snapshot = dict[bytes, Entry]


class Compared:
    """Two images in one store, and the trees of what differs."""

    def __init__(self, work: Path, a: Sequence[BuiltLayer], b: Sequence[BuiltLayer]) -> None:
        self.work = work
        self.a, self.b = MergedImage(work / "a", *a), MergedImage(work / "b", *b)
        self.store = LayerStore(work / "both", boot="test")
        self.found = list(decided(self.a, self.b))

    def snapshot(self, kind: str) -> Snapshot:
        sides = [*([self.a] if kind != "added" else []), *([self.b] if kind != "removed" else [])]
        tree: DifferingTree
        if kind == "changed":
            tree = Changed(self.a.rootfs, self.b.rootfs)
        else:
            tree = OneSided(sides[0].rootfs, "added" if kind == "added" else "removed")
        writer = MergedTableWriter(self.work / kind)
        try:
            writer.fill(tree.rows(self.found), tree.links)
            counts = [count for side in sides for count in side.merged.row_counts()]
            writer.finish(tree.root, tree.root_attributes(), row_counts=counts)
        finally:
            writer.abandon()
        indexes: list[LayerIndex] = []
        for side in sides:
            indexes += [ingested(self.store, each) for each in side.layers]
        diff_ids = [digest for side in sides for digest in side.rootfs.diff_ids]
        with closing(MergedTable.open(self.work / kind)) as table:
            return snapshot_of(Rootfs(table, indexes, diff_ids=diff_ids, tables=OpenTables()), self.store)

    def close(self) -> None:
        for each in (self.a, self.b, self.store):
            each.close()


@contextmanager
def compared(a: Sequence[BuiltLayer], b: Sequence[BuiltLayer]) -> Iterator[Compared]:
    with tempfile.TemporaryDirectory() as work, closing(Compared(Path(work), a, b)) as both:
        yield both


def leading(paths: set[bytes]) -> set[bytes]:
    """Return *paths* and what is above them, the root included."""
    above = {b"."}
    for path in paths:
        while path:
            above.add(path)
            path = path.rpartition(b"/")[0]
    return above


def below(path: bytes, name: bytes) -> bytes:
    return name if path == b"." else path + b"/" + name


def one_sided(of: Snapshot, paths: set[bytes]) -> Snapshot:
    return {path: of[path] for path in leading(paths)} if paths else {b".": of[b"."]}


def changed(a: Snapshot, b: Snapshot, paths: set[bytes]) -> Snapshot:
    """Return what the tree of what changed has to show; of the directories that it invents only that they are there."""
    ways = leading(paths)
    shown = {path: b[path] for path in ways}
    for path in (path or b"." for path in paths):
        tildes = b""
        while {below(path, b"a" + tildes), below(path, b"b" + tildes)} & ways:
            tildes += b"~"
        is_one_file = not a[path].kind == b[path].kind == "d"
        for name, side in ((b"a", a), (b"b", b)):
            shown[below(path, name + tildes)] = side[path]
            if is_one_file:
                prefix = path + b"/"
                inside = {each: entry for each, entry in side.items() if each.startswith(prefix)}
                shown |= {prefix + name + b"/" + each[len(prefix) :]: entry for each, entry in inside.items()}
    return shown


def comparable(snapshot: Snapshot, invented: set[bytes] = frozenset()) -> Snapshot:  # type: ignore[assignment]
    """Return *snapshot* without what cannot be the same where some of the names are shown, and with *invented* bare."""
    bare = {path: replace(entry, group=b"", xattrs=()) for path, entry in snapshot.items() if path in invented}
    return {path: replace(entry, group=b"") for path, entry in snapshot.items()} | bare


def assert_the_trees_are_right(both: Compared) -> None:
    a, b = both.a.snapshot(), both.b.snapshot()
    paths: dict[str, set[bytes]] = {"added": set(), "removed": set(), "changed": set()}
    for path, (kind, _) in walked(a, b).items():
        paths[kind].add(path)
    assert comparable(both.snapshot("added")) == comparable(one_sided(b, paths["added"]))
    assert comparable(both.snapshot("removed")) == comparable(one_sided(a, paths["removed"]))
    ways = leading(paths["changed"])
    expected = comparable(changed(a, b, paths["changed"]), ways)
    for path in (path or b"." for path in paths["changed"]):
        if not a[path].kind == b[path].kind == "d":  # the directory that the `a` and `b` of a file are in
            owner = b[path]
            expected[path] = replace(
                expected[path], kind="d", mode="0755", size=0, content="", target=b"", device=0, links=1,
                uid=owner.uid, gid=owner.gid,
            )  # fmt: skip
    assert comparable(both.snapshot("changed"), ways) == expected


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.one_of(st.just([]), layer_lists), layer_lists, layer_lists)
def test_the_trees_are_those_of_a_walk_of_both_images(base: list, upper_a: list, upper_b: list) -> None:  # type: ignore[type-arg]
    try:
        a, b = ([layer(*each) for each in base + upper] for upper in (upper_a, upper_b))
        with compared(a, b) as both:
            assert_the_trees_are_right(both)
    except BadLayer:
        return  # no unpacker takes it


def test_changed_paths_that_are_called_a_and_b_do_not_hide_what_their_directory_is_in_both() -> None:
    one = layer(directory("etc", mode=0o700), file("etc/a", b"1"), file("etc/a~", b"1"), file("a", b"1"))
    two = layer(directory("etc", mode=0o755), file("etc/a", b"2"), file("etc/a~", b"2"), file("a", b"2"))
    with compared([one], [two]) as both:
        assert_the_trees_are_right(both)
        shown = both.snapshot("changed")
    assert {path for path in shown if path.startswith(b"etc/")} == {
        b"etc/a", b"etc/a/a", b"etc/a/b", b"etc/a~", b"etc/a~/a", b"etc/a~/b", b"etc/a~~", b"etc/b~~",
    }  # fmt: skip
    assert (shown[b"etc/a~~"].mode, shown[b"etc/b~~"].mode) == ("0700", "0755")


def test_a_directory_that_became_a_file_is_shown_with_all_that_was_in_it() -> None:
    one = layer(file("srv/deep/one", b"1"), symlink("srv/a", "deep"), file("kept", b"kept"))
    with compared([one], [one, layer(file("srv", b"a file now"))]) as both:
        assert_the_trees_are_right(both)
        assert set(both.snapshot("changed")) == {
            b".", b"srv", b"srv/a", b"srv/a/a", b"srv/a/deep", b"srv/a/deep/one", b"srv/b",
        }  # fmt: skip


def test_names_of_one_inode_have_one_number_and_the_link_count_of_the_image() -> None:
    one, two = (layer(file("x", text), hardlink("y", "x"), hardlink("z", "x")) for text in (b"1", b"2"))
    with compared([one, layer(whiteout("z"))], [two]) as both:
        assert_the_trees_are_right(both)
        shown = both.snapshot("changed")
    assert shown[b"x/a"].group == shown[b"y/a"].group == b"x/a"
    assert shown[b"x/b"].group == shown[b"y/b"].group == b"x/b"
    assert (shown[b"x/a"].links, shown[b"x/b"].links) == (2, 3)


def test_names_may_have_any_bytes() -> None:
    names = [b"new\nline", b"\xff\xfe", b"a\\b", "grün".encode()]
    one, two = ([file(b"d/" + name, text) for name in names] for text in (b"1", b"2"))
    with compared([layer(*one)], [layer(*two, file(b"more/\x01", b""))]) as both:
        assert_the_trees_are_right(both)


def test_images_with_more_layers_than_one_table_holds_are_refused_by_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regfs.rootfs.trees_of_differences.INVENTED_LAYER", 3)
    one, two = layer(file("x", b"1")), layer(file("x", b"2"))
    with compared([one, two], [two, one]) as both, pytest.raises(TooLarge, match="both images have 4 layers; 2 are"):
        Changed(both.a.rootfs, both.b.rootfs)
