"""Listings: the entries of an open directory, in parts of any size. Used by both drivers. Any thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol

from regfs.model.attributes import Attributes
from regfs.model.node_id import LAYER_SHIFT
from regfs.rootfs.file_tree import FileTree
from regfs.tree.entry import INODE, ListedEntry
from regfs.tree.node import FOREVER, Child

PLACEHOLDER_VALID_S = 1.0
"""How many seconds the kernel may cache the placeholder attributes of a directory whose table is not loaded."""


class Listing(Protocol):
    """The entries of a directory, `.` and `..` not among them, as they were when it was opened."""

    def entries(self, start: int, limit: int) -> list[ListedEntry]:
        """Return at most *limit* entries from position *start* on; none at the end."""

    def at_once(self, position: int) -> ListedEntry:
        """Return the entry at *position* as a look-up would, without waiting, and count one look-up of it.

        Only for entries with node 0 and a validity. A table that is not loaded has placeholder attributes, which the
        kernel may cache for PLACEHOLDER_VALID_S seconds.
        """


class TableListing:
    """The entries of the directory *key* of a table, which never change."""

    def __init__(
        self, tree: FileTree, key: int, *, base: int, generation: int, inode_offsets: Mapping[int, int]
    ) -> None:
        """A node id is a key | *base*, an inode number a key plus its layer's *inode_offsets*. Raises NotADirectory."""
        tree.count(key)
        self._tree = tree
        self._key = key
        self._base = base
        self._generation = generation
        self._inode_offsets = inode_offsets

    def entries(self, start: int, limit: int) -> list[ListedEntry]:
        """Return the entries from position *start* on; the kernel may cache them for ever."""
        base, generation, offsets, pack = self._base, self._generation, self._inode_offsets, INODE.pack
        new = tuple.__new__  # NamedTuple's constructor would cost one more call for each entry
        return [
            new(
                ListedEntry,
                (name, base | key, pack(key + offsets[key >> LAYER_SHIFT]) + attributes, FOREVER, generation),
            )
            for name, key, attributes in self._tree.children(self._key, start, limit)
        ]

    def at_once(self, position: int) -> ListedEntry:
        """Return the entry at *position*; entries() already returns complete entries."""
        return self.entries(position, 1)[0]


class InventedListing:
    """The entries of an invented directory, as they were when it was opened."""

    def __init__(
        self, children: list[Child], *, inode_of: Callable[[Child], int], table_at_once: Callable[[Child], ListedEntry]
    ) -> None:
        """*inode_of* returns the inode number that a look-up of a child finds; *table_at_once* does at_once()."""
        self._children = children
        self._inode_of = inode_of
        self._table_at_once = table_at_once

    def entries(self, start: int, limit: int) -> list[ListedEntry]:
        """Return the children from position *start* on, without node ids: each needs a look-up."""
        return [self._listed(child) for child in self._children[start : start + limit]]

    def at_once(self, position: int) -> ListedEntry:
        """Return the child at *position*, which is the directory of a table, with its node id."""
        return self._table_at_once(self._children[position])

    def _listed(self, child: Child) -> ListedEntry:
        inode = INODE.pack(self._inode_of(child))
        valid_s = 0.0 if child.table is None else PLACEHOLDER_VALID_S
        return ListedEntry(os.fsencode(child.name), 0, inode + Attributes(child.mode).pack(), valid_s)
