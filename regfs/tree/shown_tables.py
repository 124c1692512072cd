"""The tables that a mount shows, rootfs/ and layers/N/tree/, by the places where they were looked up.

A table at two places has two sets of node ids, because a directory may have one name in the kernel; the inode numbers
agree. A place keeps its number from the first look-up of its directory to the forget() that gives the last one back.
No number is used again before all LAST_SLOT were, so that a node id means one thing for the life of a mount, and what
a kernel asks about a place that it let go is stale and never another table's. The table itself is there while it is in
use, and comes back when it is asked: a kernel remembers thousands of places for weeks. Used by tree.py.
Thread rule: any thread; the lock guards the two dicts, and nothing is asked under it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from regfs.errors import BadContent, NotFound, StaleNode
from regfs.model.node_id import KEY_MASK, LAST_SLOT, LAYER_SHIFT, SLOT_SHIFT, TABLE_ROOT
from regfs.rootfs.file_tree import FileTree
from regfs.store.open_tables import OpenTables
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.listings import INODE
from regfs.tree.node import TableDirectory


class ShownTable:
    """One table at one place."""

    __slots__ = (
        "__weakref__", "_attributes", "_inode", "_numbers", "_tables", "base", "changing", "directory",
        "has_placeholder", "lookups", "parent", "raised_by", "recent", "rows",
    )  # fmt: skip

    def __init__(
        self,
        directory: TableDirectory,
        *,
        number: int,
        inode: int,
        parent: int,
        numbers: InodeNumbers,
        tables: OpenTables,
    ) -> None:
        self.directory = directory
        self.base = number << SLOT_SHIFT
        self.parent = parent
        self.changing: bytes | None = None
        self.lookups = 0
        self.rows: FileTree | None = None
        """The table, while it is in use; `table()` brings it back."""
        self.recent = False
        self.has_placeholder = False
        """Whether a listing told what stands for the attributes, and nothing has told the real ones since."""
        self.raised_by: Mapping[int, int] = {}
        """By layer: inode number less key. It is there with the table, and stays."""
        self._numbers = numbers
        self._tables = tables
        self._inode = INODE.pack(inode)
        self._attributes = b""

    @property
    def root(self) -> int:
        """The node of the directory that the table is shown as."""
        return self.base | TABLE_ROOT

    def table(self) -> FileTree:
        """Return the table, waiting for it where it is not there. Raises what making it raises, but never NotFound."""
        self.recent = True
        rows = self.rows
        if rows is None:
            try:
                rows = self.directory.rows()
            except NotFound as missing:
                # The registry lacks a part of what the directory is made of. A program that looks a name up in it must
                # not be told that the name is not there: the kernel would believe it for ever.
                raise BadContent(f"{self.directory.key} cannot be made: {missing}") from missing
            self._keep(rows)
        return rows

    def close_if_idle(self) -> bool:
        """Let go of the table. A thread that works with it, and what is open in it, goes on with it."""
        self.rows = None
        return True

    def attributes(self) -> bytes:
        """Return struct fuse_attr of the directory that the table is shown as; waits and raises as table() does.

        Once they are known they stay: a look-up that fails later makes the kernel drop the directory, and all mounts
        below it.
        """
        if not self._attributes:
            self.table()
        self.has_placeholder = False
        return self._attributes

    def attributes_at_once(self) -> bytes:
        """Return the same, or what stands for them until the table is there. Does not wait."""
        if not self._attributes:
            rows = self.directory.rows_at_once()
            if rows is None:
                self.has_placeholder = True
                return self._inode + self.directory.placeholder().pack()
            self._keep(rows)
        return self._attributes

    def key(self, rows: FileTree, node: int) -> int:
        """Return the key in *rows* of a node of this place."""
        key = node & KEY_MASK
        return rows.root if key == TABLE_ROOT else key

    def packed(self, key: int, attributes: bytes) -> bytes:
        """Return struct fuse_attr of an entry of the table."""
        return INODE.pack(key + self.raised_by[key >> LAYER_SHIFT]) + attributes

    def _keep(self, rows: FileTree) -> None:
        if not self.raised_by:
            self.raised_by = self._numbers.of_layers(self.directory.identity, rows.first_rows())
        if not self._attributes:
            self._attributes = self._inode + rows.attributes(rows.root)
        self.rows = rows
        self._tables.add(self, trees=1)


class ShownTables:
    """All places, by number and by the key of their directory."""

    def __init__(self, numbers: InodeNumbers, tables: OpenTables, *, last_slot: int = LAST_SLOT) -> None:
        """*tables* bounds how many of them are in use."""
        self._numbers = numbers
        self._tables = tables
        self._last_place = last_slot
        self._lock = threading.Lock()
        self._by_key: dict[str, ShownTable] = {}
        self._next = 1
        self.by_number: dict[int, ShownTable] = {}
        """For readers; a place is added and removed here alone."""

    def of(self, node: int) -> ShownTable:
        """Return the place that *node* belongs to. Raises StaleNode."""
        try:
            return self.by_number[node >> SLOT_SHIFT]
        except KeyError:
            raise StaleNode(f"node {node:#x} was let go") from None

    def admit(self, directory: TableDirectory, parent: int, changing: bytes | None) -> ShownTable:
        """Return the place of *directory*, found in *parent*, and count one look-up of it.

        *changing* is its name, where that may come to mean another.
        """
        inode = self._numbers.of_table(directory.identity)
        with self._lock:
            shown = self._by_key.get(directory.key)
            if shown is None:
                number = self._free_number()
                shown = ShownTable(
                    directory, number=number, inode=inode, parent=parent, numbers=self._numbers, tables=self._tables
                )
                self._by_key[directory.key] = self.by_number[number] = shown
            shown.changing = changing
            shown.lookups += 1
            return shown

    def forget(self, node: int, count: int) -> None:
        """Give back *count* look-ups of *node*; those of entries count for nothing.

        The kernel forgets a directory after all that is below it, so with the last look-up the table is let go.
        """
        if node & KEY_MASK != TABLE_ROOT:
            return
        with self._lock:
            shown = self.by_number.get(node >> SLOT_SHIFT)
            if shown is None:
                return
            shown.lookups -= count
            if shown.lookups <= 0:
                del self.by_number[node >> SLOT_SHIFT], self._by_key[shown.directory.key]

    def all(self) -> list[ShownTable]:
        """Return all places there are now."""
        with self._lock:
            return list(self.by_number.values())

    def _free_number(self) -> int:
        while self._next in self.by_number:
            self._next = self._next % self._last_place + 1
        number = self._next
        self._next = number % self._last_place + 1
        return number
