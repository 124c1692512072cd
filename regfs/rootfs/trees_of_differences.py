"""Makes trees of what differs between two merged trees: the rows of three merged tables (store/images/merged_table.py).

    added      what is in b alone, and the directories that lead there, with the nodes that they have in b
    removed    what is in a alone, and the directories that lead there, with the nodes that they have in a
    changed    what is in both and differs: each path is a directory with `a` and `b` in it

    changed/etc/motd/a  changed/etc/motd/b      a file: as it is in a, and in b
    changed/etc/cron/a  changed/etc/cron/b/tab  a file that became a directory: with all that is in it
    changed/etc/a       changed/etc/b           a directory whose attributes differ: without what is in it

A directory of the last kind shows what differs below it beside its `a` and `b`. If an entry below has one of these
names, the sides are called `a~` and `b~`, with as many `~` as needed.

In the table of *changed*, the layers of b come after those of a, so that it can hold the nodes of both. Its other
directories are invented: they have no layer, and no extended attributes. Link counts of files are those in the image,
those of directories count what is shown. Memory holds the directories on the way to one path. Used by
images/comparing/. Thread rule: each object belongs to one thread.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from regfs.errors import TooLarge
from regfs.model.attributes import Attributes, is_directory, with_nlink
from regfs.model.node_id import INVENTED_LAYER, LAST_INVENTED_ROW, LAYER_SHIFT, node_key
from regfs.rootfs.differences import Child, Difference, Kind
from regfs.rootfs.merge import MOST_ROWS
from regfs.rootfs.rootfs import Rootfs
from regfs.store.images.merged_table import MergedRow

_DIRECTORY_MODE = stat.S_IFDIR | 0o755


class DifferingTree(Protocol):
    """What is written into a merged table. rows() is called once, before root_attributes() and links()."""

    @property
    def root(self) -> int:
        """The root's node."""

    def rows(self, found: Iterable[Difference]) -> Iterator[MergedRow]:
        """Yield the rows for the differences *found*, given in the order of the walk. Raises CacheFailure, TooLarge."""

    def root_attributes(self) -> bytes:
        """Return the attributes of the root."""

    def links(self) -> Iterator[tuple[int, bytes]]:
        """Yield nodes and attributes of files whose link count is not that in their layer. Some may be hidden."""


@dataclass(slots=True)
class _Directory:
    """A directory on the way to the last difference. The paths of its entries begin with *prefix*.

    *source* is its node in the tree that leading directories are taken from. *is_side*: it is in an `a` or `b`, which
    are shown whole. *sides* are its entries in a and b if its attributes differ.
    """

    prefix: bytes
    parent: int
    name: bytes
    node: int
    attributes: bytes
    source: int
    is_side: bool = False
    sides: tuple[Child, Child] | None = None
    subdirectories: int = 0
    like_sides: set[bytes] = field(default_factory=set)


class _Way:
    """The directories on the way to the last difference, from the root down; *rows* are ready to be written."""

    def __init__(self, root: _Directory) -> None:
        self.root = root
        self.rows: list[MergedRow] = []
        self._open = [root]

    @property
    def last(self) -> _Directory:
        return self._open[-1]

    def enter(self, entered: _Directory) -> None:
        self.last.subdirectories += 1
        self._open.append(entered)

    def close_but(self, path: bytes) -> list[_Directory]:
        """Leave the directories that do not lead to *path*, and return them, the deepest first."""
        left = []
        while len(self._open) > 1 and not path.startswith(self._open[-1].prefix):
            left.append(self._open.pop())
        return left

    def close_all(self) -> list[_Directory]:
        left = self._open[:0:-1]
        del self._open[1:]
        return left

    def put(self, name: bytes, node: int, attributes: bytes) -> None:
        self.rows.append((self.last.node, name, node, attributes))

    def put_closed(self, closed: _Directory) -> None:
        attributes = with_nlink(closed.attributes, 2 + closed.subdirectories)
        self.rows.append((closed.parent, closed.name, closed.node, attributes))

    def take(self) -> list[MergedRow]:
        rows, self.rows = self.rows, []
        return rows

    def root_attributes(self) -> bytes:
        return with_nlink(self.root.attributes, 2 + self.root.subdirectories)


class OneSided:
    """The tree `added` or `removed`: what only *tree* has. See DifferingTree."""

    def __init__(self, tree: Rootfs, kind: Kind) -> None:
        self.root = tree.root
        self._tree, self._kind = tree, kind
        self._way = _Way(_Directory(b"", tree.root, b"", tree.root, tree.attributes(tree.root), tree.root))
        self.root_attributes = self._way.root_attributes

    def rows(self, found: Iterable[Difference]) -> Iterator[MergedRow]:
        """See DifferingTree."""
        way = self._way
        for each in found:
            child = each.b if self._kind == "added" else each.a
            if each.kind != self._kind or child is None:
                continue
            for closed in way.close_but(each.path):
                way.put_closed(closed)
            for name in each.path[len(way.last.prefix) :].split(b"/")[:-1]:
                self._enter((name, *self._tree.lookup(way.last.source, name)))
            if is_directory(child[2]):
                self._enter(child)
            else:
                way.put(*child)
            yield from way.take()
        for closed in way.close_all():
            way.put_closed(closed)
        yield from way.take()

    def links(self) -> Iterator[tuple[int, bytes]]:
        """See DifferingTree."""
        return self._tree.merged.links()

    def _enter(self, child: Child) -> None:
        name, node, attributes = child
        above = self._way.last
        self._way.enter(_Directory(above.prefix + name + b"/", above.node, name, node, attributes, node))


class Changed:
    """The tree `changed`: what differs from *a* to *b*. See DifferingTree."""

    def __init__(self, a: Rootfs, b: Rootfs) -> None:
        """Raises TooLarge if both together have too many layers or rows for the nodes of one table."""
        layers = len(a.layers) + len(b.layers)
        if layers >= INVENTED_LAYER:
            raise TooLarge(f"both images have {layers} layers; {INVENTED_LAYER - 1} are the most that can be shown")
        if sum(a.merged.row_counts()) + sum(b.merged.row_counts()) > MOST_ROWS:
            raise TooLarge(f"the layers of both images have more than {MOST_ROWS} entries")
        self._a, self._b = a, b
        self._b_comes_after = len(a.layers) << LAYER_SHIFT
        self._invented = 0
        self.root = self._new_node()
        self._way = _Way(_Directory(b"", self.root, b"", self.root, b.attributes(b.root), b.root))

    def rows(self, found: Iterable[Difference]) -> Iterator[MergedRow]:
        """See DifferingTree."""
        way = self._way
        for each in found:
            for closed in way.close_but(each.path):
                self._put_closed(closed)
            if each.kind != "changed":
                self._put_in_side(each)
            elif not each.path:
                way.root.sides = _both(each)
            else:
                for name in each.path[len(way.last.prefix) :].split(b"/")[:-1]:
                    self._lead((name, *self._b.lookup(way.last.source, name)))
                self._put_changed(each)
            yield from way.take()
        for closed in way.close_all():
            self._put_closed(closed)
        self._put_sides(way.root)
        yield from way.take()

    def root_attributes(self) -> bytes:
        """See DifferingTree."""
        return self._way.root_attributes()

    def links(self) -> Iterator[tuple[int, bytes]]:
        """See DifferingTree."""
        of_b = ((self._in_table(node, is_of_b=True), attributes) for node, attributes in self._b.merged.links())
        return chain(self._a.merged.links(), of_b)

    def _lead(self, child: Child) -> _Directory:
        """Enter a directory that leads to a difference. It has b's attributes."""
        name, source, attributes = child
        above = self._way.last
        if not name.rstrip(b"~")[1:] and name[:1] in (b"a", b"b"):
            above.like_sides.add(name)
        entered = _Directory(above.prefix + name + b"/", above.node, name, self._new_node(), attributes, source)
        self._way.enter(entered)
        return entered

    def _put_changed(self, each: Difference) -> None:
        a, b = _both(each)
        if is_directory(a[2]) and is_directory(b[2]):
            self._lead(b).sides = (a, b)
            return
        self._lead((b[0], b[1], _of_a_directory(b[2])))
        # The side that is a directory comes last and stays open: the walk finds its entries next.
        sides = [(b"a", a, False), (b"b", b, True)]
        for name, child, is_of_b in sorted(sides, key=lambda side: is_directory(side[1][2])):
            self._put_one(name, child, is_of_b=is_of_b)

    def _put_in_side(self, each: Difference) -> None:
        """Put what only one image has, if it is in a directory that is a file in the other."""
        if self._way.last.is_side:
            child = each.b or each.a
            assert child is not None
            self._put_one(child[0], child, is_of_b=each.b is not None)

    def _put_one(self, name: bytes, child: Child, *, is_of_b: bool) -> None:
        """Put a row with a node of one image; enter it if it is a directory."""
        node, attributes, above = self._in_table(child[1], is_of_b=is_of_b), child[2], self._way.last
        if not is_directory(attributes):
            self._way.put(name, node, attributes)
            return
        # The names `a` and `b` of the sides are not in the paths of differences.
        prefix = above.prefix + name + b"/" if above.is_side else above.prefix
        self._way.enter(_Directory(prefix, above.node, name, node, attributes, node, is_side=True))

    def _put_closed(self, closed: _Directory) -> None:
        self._put_sides(closed)
        self._way.put_closed(closed)

    def _put_sides(self, closed: _Directory) -> None:
        """Put the rows `a` and `b` of a directory whose attributes differ, without its entries."""
        if closed.sides is None:
            return
        tildes = b""
        while {b"a" + tildes, b"b" + tildes} & closed.like_sides:
            tildes += b"~"
        for name, (_, node, attributes), is_of_b in zip((b"a", b"b"), closed.sides, (False, True), strict=True):
            own = self._in_table(node, is_of_b=is_of_b)
            self._way.rows.append((closed.node, name + tildes, own, with_nlink(attributes, 2)))
            closed.subdirectories += 1

    def _in_table(self, node: int, *, is_of_b: bool) -> int:
        if node >> LAYER_SHIFT == INVENTED_LAYER:
            return self._new_node()
        return node + self._b_comes_after if is_of_b else node

    def _new_node(self) -> int:
        if self._invented > LAST_INVENTED_ROW:
            raise TooLarge(f"more than {LAST_INVENTED_ROW} paths differ; regfs diff prints any number")
        self._invented += 1
        return node_key(INVENTED_LAYER, self._invented - 1)


def _both(each: Difference) -> tuple[Child, Child]:
    assert each.a is not None
    assert each.b is not None
    return each.a, each.b


def _of_a_directory(of: bytes) -> bytes:
    """Return the attributes of the directory that stands for a changed file: owner and time are b's."""
    own = Attributes.unpack(of)
    return own._replace(mode=_DIRECTORY_MODE, size=0, nlink=2, rdev=0).pack()
