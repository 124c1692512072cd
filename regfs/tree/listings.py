"""What a directory shows, in parts of any size. Used by tree.py, and by both drivers through it. Any thread."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from regfs.model.attributes import Attributes
from regfs.model.node_id import LAYER_SHIFT
from regfs.rootfs.row_tree import RowTree
from regfs.tree.node import FOREVER, Child

INODE = struct.Struct("<Q")
"""What struct fuse_attr begins with; the 80 bytes of model/attributes.py follow."""


class Listed(NamedTuple):
    """An entry of a directory. With *node* 0 only type and inode number are known, and a look-up tells the rest."""

    name: bytes
    node: int
    attributes: bytes
    valid_s: float


class Listing(Protocol):
    """The entries of a directory, `.` and `..` not among them, as they were when it was opened."""

    def entries(self, start: int, limit: int) -> list[Listed]:
        """Return at most *limit* entries from position *start* on; none where the directory ends."""


class RowListing:
    """The entries of the directory *key* of a table, which never change."""

    def __init__(self, rows: RowTree, key: int, *, base: int, raised_by: Mapping[int, int]) -> None:
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


class InventedListing:
    """The entries of an invented directory, as they were when it was opened."""

    def __init__(self, children: list[Child], inode_of: Callable[[Child], int]) -> None:
        """*inode_of* tells the inode number that a look-up of a child will find."""
        self._children = children
        self._inode_of = inode_of

    def entries(self, start: int, limit: int) -> list[Listed]:
        """Return the children from position *start* on; each is to be looked up."""
        return [self._listed(child) for child in self._children[start : start + limit]]

    def _listed(self, child: Child) -> Listed:
        inode = INODE.pack(self._inode_of(child))
        return Listed(os.fsencode(child.name), 0, inode + Attributes(child.mode).pack(), 0.0)
