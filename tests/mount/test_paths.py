"""Paths to nodes: what is remembered, for how long, and what holds while something is open."""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, field

import pytest

from regfs.errors import NameTooLong, NotFound
from regfs.mount.fusepy.paths import Paths
from regfs.tree.entry import FoundEntry, ListedEntry


@dataclass
class Names:
    """A tree that is a dict: (parent, name) -> (node, valid_s); it counts look-ups."""

    names: dict[tuple[int, bytes], tuple[int, float]]
    lookups: list[bytes] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        self.lookups.append(name)
        if (parent, name) not in self.names:
            raise NotFound(repr(name))
        node, valid_s = self.names[parent, name]
        self.known[node] = self.known.get(node, 0) + 1
        return FoundEntry(node, b"%d" % node, valid_s)

    def attributes(self, node: int) -> FoundEntry:
        return FoundEntry(node, b"%d" % node, math.inf)

    def forget(self, node: int, count: int) -> None:
        self.known[node] -= count


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tree() -> Names:
    """/repository/tag/file: the tag is valid for 60 s, all else for ever. Node 20 is the image, 30 the file in it."""
    return Names(
        {
            (1, b"repository"): (10, math.inf),
            (10, b"tag"): (20, 60.0),
            (20, b"file"): (30, math.inf),
            (20, b"other"): (31, math.inf),
            (21, b"file"): (40, math.inf),
            (21, b"other"): (41, math.inf),
        }
    )


def test_a_path_is_walked_once(tree: Names) -> None:
    paths = Paths(tree)
    assert [paths.find(b"/repository/tag/file").node for _ in range(3)] == [30, 30, 30]
    assert tree.lookups == [b"repository", b"tag", b"file"]


def test_a_walk_begins_at_the_nearest_known_directory(tree: Names) -> None:
    paths = Paths(tree)
    paths.find(b"/repository/tag/file")
    paths.find(b"/repository/tag/other")
    assert tree.lookups == [b"repository", b"tag", b"file", b"other"]


def test_the_root_is_node_one(tree: Names) -> None:
    assert Paths(tree).find(b"/").node == 1


def test_what_is_missing_is_asked_again(tree: Names) -> None:
    paths = Paths(tree)
    for _ in range(2):
        with pytest.raises(NotFound):
            paths.find(b"/repository/tag/no")
    assert tree.lookups.count(b"no") == 2


def test_a_name_over_255_bytes_is_too_long(tree: Names) -> None:
    with pytest.raises(NameTooLong):
        Paths(tree).find(b"/" + b"a" * 256)


def test_a_tag_is_looked_up_again_when_its_time_is_over(tree: Names, clock: Clock) -> None:
    paths = Paths(tree, clock=clock)
    paths.find(b"/repository/tag/file")
    tree.names[10, b"tag"] = (21, 60.0)
    assert paths.find(b"/repository/tag/file").node == 30
    clock.now_s = 61
    assert paths.find(b"/repository/tag/file").node == 40


def test_a_tag_that_has_not_moved_keeps_what_is_known_below_it(tree: Names, clock: Clock) -> None:
    paths = Paths(tree, clock=clock)
    paths.find(b"/repository/tag/file")
    clock.now_s = 61
    paths.find(b"/repository/tag")
    tree.lookups.clear()
    assert paths.find(b"/repository/tag/file").node == 30
    assert tree.lookups == []


def test_a_tag_holds_while_a_file_below_it_is_open(tree: Names, clock: Clock) -> None:
    paths = Paths(tree, clock=clock)
    path_node = paths.find(b"/repository/tag/file")
    paths.hold(path_node)
    tree.names[10, b"tag"] = (21, 60.0)
    clock.now_s = 61
    assert paths.find(b"/repository/tag/other").node == 31
    paths.release(path_node)
    assert paths.find(b"/repository/tag/other").node == 41


def test_an_open_file_does_not_hold_its_own_name(tree: Names, clock: Clock) -> None:
    tree.names[1, b"stats"] = (50, 0.0)
    paths = Paths(tree, clock=clock)
    paths.hold(paths.find(b"/stats"))
    tree.names[1, b"stats"] = (51, 0.0)
    assert paths.find(b"/stats").node == 51


def test_what_a_listing_tells_need_not_be_looked_up(tree: Names) -> None:
    paths = Paths(tree)
    directory = paths.find(b"/repository/tag")
    paths.remember(directory, b"/repository/tag/file", FoundEntry(30, b"30", math.inf))
    assert paths.find(b"/repository/tag/file").node == 30
    assert b"file" not in tree.lookups


def test_what_a_listing_told_moves_with_its_tag(tree: Names, clock: Clock) -> None:
    paths = Paths(tree, clock=clock)
    paths.remember(paths.find(b"/repository/tag"), b"/repository/tag/file", FoundEntry(30, b"30", math.inf))
    tree.names[10, b"tag"] = (21, 60.0)
    clock.now_s = 61
    assert paths.find(b"/repository/tag/file").node == 40


def test_what_a_listing_tells_for_a_moment_is_looked_up_after_it(tree: Names, clock: Clock) -> None:
    paths = Paths(tree, clock=clock)
    told: list[int] = []

    def look_up() -> ListedEntry:
        told.append(30)
        tree.lookup(20, b"file")
        return ListedEntry(b"file", 30, b"for a moment", 1.0)

    directory = paths.find(b"/repository/tag")
    for _ in range(2):  # what is known is not looked up again
        paths.remember_for_a_moment(directory, b"/repository/tag/file", look_up)
    clock.now_s = 0.9
    assert paths.find(b"/repository/tag/file").attributes == b"for a moment"
    clock.now_s = 1.1
    assert paths.find(b"/repository/tag/file").attributes == b"30"
    paths.remember_for_a_moment(directory, b"/repository/tag/file", look_up)
    assert (told, paths.find(b"/repository/tag/file").attributes) == ([30], b"30")


def test_what_may_change_is_not_taken_from_a_listing(tree: Names) -> None:
    paths = Paths(tree)
    paths.remember(paths.find(b"/repository"), b"/repository/tag", FoundEntry(99, b"99", 60.0))
    assert paths.find(b"/repository/tag").node == 20


def test_the_tree_is_told_to_forget_what_is_not_remembered_any_more() -> None:
    tree = Names({(1, b"%d" % number): (number + 100, math.inf) for number in range(100)})
    paths = Paths(tree, most=10)
    for number in range(100):
        paths.find(b"/%d" % number)
    gc.collect()
    paths.find(b"/0")
    assert sum(tree.known.values()) <= 12


def test_a_directory_is_known_as_long_as_something_below_it_is(tree: Names) -> None:
    tree.names |= {(1, b"%d" % number): (number + 100, math.inf) for number in range(100)}
    paths = Paths(tree, most=10)
    path_node = paths.find(b"/repository/tag/file")
    for number in range(100):
        paths.find(b"/%d" % number)
    assert (tree.known[20], path_node.above is not None) == (1, True)
    del path_node
    for number in range(100):
        paths.find(b"/%d" % number)
    assert tree.known[20] == 0
