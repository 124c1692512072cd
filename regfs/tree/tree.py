"""Tree: the file system that both drivers show (mount/filesystem.py), by node ids. It has two kinds of nodes.

    an invented node (registry, tag, `digest` …)     an object, kept while the kernel knows it      invented.py
    an entry of a table (rootfs/, layers/N/tree/)    a row; only its table's slot is kept              table_slots.py

The slot number in a node id (model/node_id.py) tells which kind it is. Thread rule: any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from regfs.errors import NameTooLong, ReadOnly
from regfs.model.names import NAME_MAX
from regfs.model.node_id import ROOT, SLOT_SHIFT, is_entry
from regfs.model.whiteout import is_too_long
from regfs.store.layers.content import Content, OpenContent
from regfs.store.tables.open_tables import OpenTables
from regfs.tree.entry import FoundEntry
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.invented import InventedNodes, Kept
from regfs.tree.listings import Listing
from regfs.tree.node import OpenFile
from regfs.tree.root import Root
from regfs.tree.snapshot import KeptNode, Records, Snapshot
from regfs.tree.table_slots import TableSlot, TableSlots
from regfs.tree.tags_in_use import NamesInUse
from regfs.tree.taken_over_nodes import DormantNode, dormant_table
from regfs.tree.usage import CacheUsage, Usage


class Nodes(Protocol):
    """The operations on nodes of one kind: InventedNodes, or the TableSlot of one table. See Tree for each method."""

    def lookup(self, parent: int, name: bytes) -> FoundEntry: ...

    def attributes(self, node: int) -> FoundEntry: ...

    def enter(self, node: int) -> bool: ...

    def parent(self, node: int) -> int: ...

    def listing(self, node: int) -> Listing: ...

    def read_link(self, node: int) -> bytes: ...

    def open(self, node: int) -> OpenFile: ...

    def read_following(self, node: int, limit: int, buffer: bytearray, /) -> list[tuple[int, bytes]]: ...

    def xattrs(self, node: int) -> Mapping[bytes, bytes]: ...

    def name_of(self, node: int) -> str: ...


class Tree:
    """All that a mount shows. Every call may raise any RegfsError, and may wait until the thread's deadline."""

    def __init__(
        self,
        root: Root,
        *,
        numbers: InodeNumbers,
        open_content: Callable[[Content], OpenContent],
        cache: CacheUsage,
        names: NamesInUse,
        tables: OpenTables,
    ) -> None:
        """*tables* bounds which images are in use, and which tables are open."""
        self._root = root
        self._names = names
        self._cache = cache
        self._slots = TableSlots(numbers, tables, open_content)
        self._invented = InventedNodes(root, numbers=numbers, names=names, slots=self._slots)
        self._slots.tag_above = self._invented.tag_above
        self._by_slot: Mapping[int, Nodes] = self._slots.by_number

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """Return the entry *name* of the directory *parent*, and count one look-up of it.

        The look-up of a rootfs/ may download and unpack the whole image. Raises NotFound, NotADirectory, NameTooLong.
        """
        if len(name) > NAME_MAX and is_too_long(name):
            raise NameTooLong(f"a name of {len(name)} bytes; {NAME_MAX} are allowed")
        return self._by_slot.get(parent >> SLOT_SHIFT, self._invented).lookup(parent, name)

    def attributes(self, node: int) -> FoundEntry:
        """Return the attributes of *node*."""
        return self._nodes(node).attributes(node)

    def enter(self, node: int) -> bool:
        """Load the real attributes of the directory *node* if a listing gave the kernel placeholders.

        Return whether it did, so that the driver can tell the kernel to drop the placeholders: chdir, chroot and
        opendir follow soon after a listing, and a program that copies the directory then asks for its attributes.
        """
        return self._nodes(node).enter(node)

    def parent(self, node: int) -> int:
        """Return the directory that *node* was found in; the root is its own parent."""
        return self._nodes(node).parent(node)

    def listing(self, node: int) -> Listing:
        """Return the entries of the directory *node*. Raises NotADirectory."""
        return self._nodes(node).listing(node)

    def read_link(self, node: int) -> bytes:
        """Return the target of the symbolic link *node*. Raises NotASymlink."""
        return self._nodes(node).read_link(node)

    def open(self, node: int) -> OpenFile:
        """Open the regular file *node*; may block on the network. Raises IsADirectory."""
        return self._nodes(node).open(node)

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """Return nodes and bytes of the small files that a reader of all files is likely to open after *node*.

        At most *limit* files, whose bytes are read into *buffer* with one read; none for an invented node. Some may be
        hidden in this image, and some unknown to the kernel. Does not wait.
        """
        return self._nodes(node).read_following(node, limit, buffer)

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes of *node*."""
        return self._nodes(node).xattrs(node)

    def unlink(self, parent: int, name: bytes) -> None:
        """Evict the part of the cache that is called *name* in the directory *parent*; blocks on the disk.

        Raises ReadOnly in all directories but those of `.regfs/cache/`; there NotFound, InUse, CacheFailure.
        """
        if is_entry(parent):
            raise ReadOnly("the files of images are shown, not written")
        self._invented.unlink(parent, name)

    def may_unlink(self, node: int) -> bool:
        """Return whether unlink() takes the file *node*, or names in the directory *node*."""
        return not is_entry(node) and self._invented.may_unlink(node)

    def name_of(self, node: int) -> str:
        """Return the path of *node* for messages, or its number; a tag is followed by its digest.

        Never fails, never waits.
        """
        return self._nodes(node).name_of(node)

    def forget(self, node: int, count: int) -> None:
        """Take back *count* look-ups of *node*; entries of tables are not counted."""
        if node >> SLOT_SHIFT in self._by_slot:
            self._slots.forget(node, count)
        else:
            self._invented.forget(node, count)

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return directory and name of each name that the kernel knows and whose meaning may change."""
        kept: list[Kept | TableSlot] = [*self._invented.all().values(), *self._slots.all()]
        return [(each.found_in, each.changing) for each in kept if each.changing is not None]

    def usage(self) -> Usage:
        """Return the sizes of the cache for statfs(2); no network. Raises WouldBlock."""
        return self._cache.now()

    def snapshot(self) -> Snapshot:
        """Return the kernel's node ids and slots, for a tree in another process. No request may run meanwhile."""
        nodes = [self._invented.as_kept(node, kept) for node, kept in self._invented.all().items() if node != ROOT]
        nodes += [self._slots.as_kept(slot) for slot in self._slots.all()]
        return Snapshot(tuple(nodes), self._names.snapshot(), *self._slots.next_free())

    def record_in(self, records: Records) -> None:
        """Write to *records* what the kernel is told. To be called before the first request."""
        self._invented.records = self._slots.records = self._names.records = records

    def restore(self, snapshot: Snapshot) -> None:
        """Take over the nodes of *snapshot* with their ids. To be called before the first request; no network.

        Each node is located when it is first needed (taken_over_nodes.py); if it no longer exists, it is stale then.
        """
        for kept in snapshot.nodes:
            self._restore(kept)
        self._names.restore(snapshot.images)
        self._slots.restore_next(snapshot.next_slot, snapshot.generation)

    def _restore(self, kept: KeptNode) -> None:
        name = None if kept.changing is None else os.fsencode(kept.changing)
        if is_entry(kept.node):
            node = dormant_table(kept, self._root.locate)
            self._slots.restore(kept, node, name)
            if name is not None:
                self._names.answered(kept.found_in, name, node)
            return
        dormant = DormantNode(kept, self._root.locate)
        self._invented.restore(kept.node, Kept(dormant, kept.found_in, name, kept.lookups, kept.record))
        if name is not None:
            self._names.answered(kept.found_in, name, dormant)

    def _nodes(self, node: int) -> Nodes:
        return self._by_slot.get(node >> SLOT_SHIFT, self._invented)


if TYPE_CHECKING:

    def _assert_nodes(invented: InventedNodes, slot: TableSlot) -> tuple[Nodes, Nodes]:
        """Let mypy check that both kinds implement Nodes."""
        return invented, slot
