"""The invented nodes that the kernel knows: registries, tags, `digest`, `blobs/` … Used by tree.py.

A node is kept from its first look-up to its last forget(). Its id is the hash of its key (model/node_id.py), or the
next one where two keys have the same hash. A look-up of a table's directory assigns it a slot (table_slots.py). Thread
rule: any thread; the lock guards the nodes, and no thread waits for the network under it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from regfs.errors import IsADirectory, NotADirectory, NotASymlink, ReadOnly, StaleNode
from regfs.model.attributes import Attributes, without_change_time
from regfs.model.node_id import ROOT, invented_node, next_invented
from regfs.process.waiting.deadline import current
from regfs.tree.entry import INODE, FoundEntry, ListedEntry
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.listings import PLACEHOLDER_VALID_S, InventedListing
from regfs.tree.node import (
    FOREVER,
    Child,
    Dated,
    Directory,
    Evicting,
    File,
    Invented,
    Link,
    Live,
    OpenFile,
    TableDirectory,
)
from regfs.tree.root import CONTROL, Root
from regfs.tree.snapshot import NO_RECORDS, KeptNode
from regfs.tree.table_slots import TableSlots
from regfs.tree.tag import TagDirectory
from regfs.tree.tags_in_use import NamesInUse
from regfs.tree.taken_over_nodes import DormantNode

_ATTRIBUTES_VALID_S = 60.0
# The date of an image is known when its config is fetched, which another request may do at any time.
_UNDATED_VALID_S = 2.0
_NO_XATTRS: Mapping[bytes, bytes] = {}


@dataclass(slots=True)
class Kept:
    """A node that the kernel knows: its directory, its name there if the name's meaning may change, its look-up count.

    *found_in* is the node id of the directory, *record* the number of its record (Records), 0 if none.
    """

    node: Invented | DormantNode
    found_in: int
    changing: bytes | None
    lookups: int = 0
    record: int = 0

    @property
    def is_tag(self) -> bool:
        """Whether it is the directory of a tag."""
        node = self.node
        return node.tag == node.key if isinstance(node, DormantNode) else isinstance(node, TagDirectory)


class InventedNodes:
    """The invented nodes by their ids. *slots* gets the directories of tables that a look-up finds."""

    def __init__(self, root: Root, *, numbers: InodeNumbers, names: NamesInUse, slots: TableSlots) -> None:
        self._numbers = numbers
        self._names = names
        self._slots = slots
        self._lock = threading.Lock()
        self._kept: dict[int, Kept] = {ROOT: Kept(root, ROOT, None, 1)}
        self.records = NO_RECORDS

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """See Tree.lookup."""
        found = self._names.lookup(parent, self._directory(parent), name)
        changing = None if found.valid_s == FOREVER else name
        if isinstance(found.node, TableDirectory):
            return self._slots.entry(found.node, parent, changing, found.valid_s)
        return self._admit(found.node, parent, changing, found.valid_s)

    def attributes(self, node: int) -> FoundEntry:
        """See Tree.attributes."""
        invented = self._node(node)
        attributes = invented.attributes()
        valid_s = min(_ATTRIBUTES_VALID_S, _valid_s(invented, attributes))
        return FoundEntry(node, self._packed(node, attributes), valid_s)

    def enter(self, _node: int) -> bool:
        """See Tree.enter. Listings never give placeholders for invented nodes."""
        return False

    def parent(self, node: int) -> int:
        """See Tree.parent."""
        return self._keep(node).found_in

    def listing(self, node: int) -> InventedListing:
        """See Tree.listing."""
        children = self._names.children(node, self._directory(node))
        return InventedListing(children, inode_of=self._inode_of, table_at_once=partial(self._table_at_once, node))

    def read_link(self, node: int) -> bytes:
        """See Tree.read_link."""
        link = self._node(node)
        if not isinstance(link, Link):
            raise NotASymlink(f"{link.key} is not a symbolic link")
        return link.target

    def open(self, node: int) -> OpenFile:
        """See Tree.open."""
        file = self._node(node)
        if not isinstance(file, File):
            raise IsADirectory(f"{file.key} is not a file")
        return file.open()

    def read_following(self, _node: int, _limit: int, _buffer: bytearray) -> list[tuple[int, bytes]]:
        """See Tree.read_following: invented files have no order."""
        return []

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """See Tree.xattrs: tags have some."""
        invented = self._node(node)
        return self._names.xattrs(node, invented) if isinstance(invented, TagDirectory) else _NO_XATTRS

    def unlink(self, parent: int, name: bytes) -> None:
        """See Tree.unlink."""
        directory = self._evicting(parent)
        if directory is None:
            raise ReadOnly(f"{self.name_of(parent)}: registries are shown, not written")
        current().remaining_s(0.0)  # the thread that reads requests must not wait for the disk
        directory.evict(os.fsdecode(name))

    def may_unlink(self, node: int) -> bool:
        """See Tree.may_unlink."""
        return self._evicting(node) is not None or self._evicting(self._keep(node).found_in) is not None

    def name_of(self, node: int) -> str:
        """See Tree.name_of."""
        kept = self._kept.get(node)
        return f"node {node:#x}" if kept is None else kept.node.key or "/"

    def forget(self, node: int, count: int) -> None:
        """See Tree.forget. The root stays."""
        with self._lock:
            kept = self._kept.get(node)
            if kept is None or node == ROOT:
                return
            kept.lookups -= count
            if kept.lookups > 0:
                self.records.count(kept.record, kept.lookups)
                return
            del self._kept[node]
            self.records.drop(kept.record)
        self._names.forget(node, kept.found_in, kept.changing)

    def all(self) -> dict[int, Kept]:
        """Return all nodes that are kept now, by their ids."""
        with self._lock:
            return dict(self._kept)

    def restore(self, node: int, kept: Kept) -> None:
        """Add *kept*, taken over from another process, under the id *node*."""
        with self._lock:
            self._kept[node] = kept

    def tag_above(self, node: int) -> str:
        """Return the key of the tag's directory that *node* is, or is below; '' if there is none."""
        while (kept := self._kept.get(node)) is not None and node != ROOT:
            if kept.is_tag:
                return kept.node.key
            if isinstance(kept.node, DormantNode):
                return kept.node.tag
            node = kept.found_in
        return ""

    def as_kept(self, node: int, kept: Kept) -> KeptNode:
        """Return *kept*, whose id is *node*, as a plain value."""
        name = None if kept.changing is None else os.fsdecode(kept.changing)
        tag = self.tag_above(node)
        return KeptNode(node, 0, kept.node.key, tag, kept.found_in, name, kept.lookups, record=kept.record)

    def _keep(self, node: int) -> Kept:
        try:
            return self._kept[node]
        except KeyError:
            raise StaleNode(f"node {node:#x} was forgotten") from None

    def _node(self, node: int) -> Invented:
        kept = self._keep(node)
        found = kept.node
        if not isinstance(found, DormantNode):
            return found
        located = found.wake()
        if isinstance(located, TableDirectory):
            raise StaleNode(f"{found.key} is another kind of node now")
        kept.node = located
        return located

    def _directory(self, node: int) -> Directory:
        directory = self._node(node)
        if not isinstance(directory, Directory):
            raise NotADirectory(f"{directory.key} is not a directory")
        return directory

    def _evicting(self, node: int) -> Evicting | None:
        """Return the directory *node* if rm evicts in it. No other node is located for that, and no registry asked."""
        if not self._keep(node).node.key.startswith(f"{CONTROL}/"):
            return None
        found = self._node(node)
        return found if isinstance(found, Evicting) else None

    def _admit(self, node: Invented, found_in: int, changing: bytes | None, valid_s: float) -> FoundEntry:
        """Return the id of *node*, given now or earlier, and count one look-up. *changing*: see Kept."""
        attributes = node.attributes()
        with self._lock:
            number = self._number_of(node.key)
            kept = self._kept.get(number)
            is_known = kept is not None and kept.changing == changing and kept.is_tag == isinstance(node, TagDirectory)
            if kept is None:
                kept = self._kept[number] = Kept(node, found_in, changing)
            # The key may stand for another kind of node now: a tag was pushed where a namespace was, or a refusal was
            # lifted. A program that holds the old node must see the new one.
            kept.node = node
            kept.changing = changing
            kept.lookups += 1
            if is_known:
                self.records.count(kept.record, kept.lookups)
            else:
                record = self.records.keep(self.as_kept(number, kept))
                self.records.drop(kept.record)
                kept.record = record
        return FoundEntry(number, self._packed(number, attributes), min(valid_s, _valid_s(node, attributes)))

    def _number_of(self, key: str) -> int:
        """Return the id of the invented node *key*: its hash, or the next one that no other node has."""
        number = invented_node(key)
        while (kept := self._kept.get(number)) is not None and kept.node.key != key:
            number = next_invented(number)
        return number

    def _inode_of(self, child: Child) -> int:
        """Return the inode number that a look-up of *child* will find."""
        if child.table is not None:
            return self._numbers.of_table(child.table.identity)
        return self._numbers.of_invented(self._number_of(child.key))

    def _packed(self, node: int, attributes: Attributes) -> bytes:
        """Return struct fuse_attr of the node *node*.

        Its modification time may become known while a program reads the node. tar takes another time of the last change
        for a sign that the file was written meanwhile, so that one stays the same.
        """
        return INODE.pack(self._numbers.of_invented(node)) + without_change_time(attributes.pack())

    def _table_at_once(self, node: int, child: Child) -> ListedEntry:
        """Return the entry of the table *child* in the directory *node* without waiting, and count one look-up."""
        assert child.table is not None
        name = os.fsencode(child.name)
        slot = self._slots.admit(child.table, node, name)
        attributes = slot.root_attributes_at_once()
        return ListedEntry(name, slot.root, attributes, PLACEHOLDER_VALID_S, slot.generation)


def _valid_s(node: Invented, attributes: Attributes) -> float:
    """Return how many seconds the kernel may cache the attributes of *node*."""
    if isinstance(node, Live):
        return 0.0
    return _UNDATED_VALID_S if attributes.mtime_ns == 0 and isinstance(node, Dated) else FOREVER
