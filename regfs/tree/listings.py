"""What a directory shows, in parts of any size. Used by tree.py, and by both drivers through it. Any thread."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from regfs.model.attributes import Attributes
from regfs.model.node_id import LAYER_SHIFT
from regfs.rootfs.file_tree import FileTree
from regfs.tree.node import FOREVER, Child

INODE = struct.Struct("<Q")
"""What struct fuse_attr begins with; the 80 bytes of model/attributes.py follow."""
PLACEHOLDER_VALID_S = 1.0
"""For how long the kernel may believe what a listing says of a directory whose table is not there yet."""


class Listed(NamedTuple):
    """An entry of a directory. With *node* 0 only type and inode number are known, and a look-up tells the rest.

    With *node* 0 and a time for which it holds, Listing.at_once() can tell the rest.
    """

    name: bytes
    node: int
    attributes: bytes
    valid_s: float


class Listing(Protocol):
    """The entries of a directory, `.` and `..` not among them, as they were when it was opened."""

    def entries(self, start: int, limit: int) -> list[Listed]:
        """Return at most *limit* entries from position *start* on; none where the directory ends."""

    def at_once(self, position: int) -> Listed:
        """Return the entry at *position* as a look-up that does not wait finds it, and count that as a look-up.

        For entries of which entries() says so. What stands for attributes that are not known yet holds for a moment.
        """


class RowListing:
    """The entries of the directory *key* of a table, which never change."""

    def __init__(self, rows: FileTree, key: int, *, base: int, raised_by: Mapping[int, int]) -> None:
        """Node ids are keys with *base* in them, inode numbers keys plus *raised_by*. Raises NotADirectory."""
        rows.count(key)
        self._rows = rows
        self._key = key
        self._base = base
        self._raised_by = raised_by

    def entries(self, start: int, limit: int) -> list[Listed]:
        """Return the rows from position *start* on; they hold for ever."""
        base, raised_by, pack = self._base, self._raised_by, INODE.pack
        return [
            Listed(name, base | key, pack(key + raised_by[key >> LAYER_SHIFT]) + attributes, FOREVER)
            for name, key, attributes in self._rows.children(self._key, start, limit)
        ]

    def at_once(self, position: int) -> Listed:
        """Return the entry at *position*, of which all is known in any case."""
        return self.entries(position, 1)[0]


class InventedListing:
    """The entries of an invented directory, as they were when it was opened."""

    def __init__(
        self, children: list[Child], *, inode_of: Callable[[Child], int], table_at_once: Callable[[Child], Listed]
    ) -> None:
        """*inode_of* tells the inode number that a look-up of a child will find; *table_at_once* does at_once()."""
        self._children = children
        self._inode_of = inode_of
        self._table_at_once = table_at_once

    def entries(self, start: int, limit: int) -> list[Listed]:
        """Return the children from position *start* on; each is to be looked up."""
        return [self._listed(child) for child in self._children[start : start + limit]]

    def at_once(self, position: int) -> Listed:
        """Return the child at *position*, the directory of a table, with its node."""
        return self._table_at_once(self._children[position])

    def _listed(self, child: Child) -> Listed:
        inode = INODE.pack(self._inode_of(child))
        valid_s = 0.0 if child.table is None else PLACEHOLDER_VALID_S
        return Listed(os.fsencode(child.name), 0, inode + Attributes(child.mode).pack(), valid_s)
