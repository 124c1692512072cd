"""The tables that a mount shows, rootfs/ and layers/N/tree/: a slot for each directory that one is shown as.

A table that is shown as two directories has two slots and two sets of node ids, because a directory may have one name
in the kernel; the inode numbers agree. A slot keeps its number from the first look-up of its directory to the forget()
that takes the last one back. A number is reused only after all LAST_SLOT numbers were used, and then with the next
generation: a request about a forgotten slot is stale, and never reaches another table. Slots are small, because a
kernel remembers thousands of directories for weeks; open tables are few (store/tables/open_tables.py) and are opened
again on demand.

Only TableSlot.load() downloads layers. Used by tree.py and invented.py. Thread rule: any thread; the lock guards the
two dicts, and no table is loaded under it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial

from regfs.errors import BadContent, CacheFailure, NotFound
from regfs.model.attributes import without_change_time
from regfs.model.node_id import KEY_MASK, LAST_SLOT, LAYER_SHIFT, SLOT_SHIFT, TABLE_ROOT
from regfs.rootfs.file_tree import FileTree
from regfs.store.layers.content import Content, OpenContent, Span
from regfs.store.tables.open_tables import OpenTables
from regfs.tree.entry import INODE, FoundEntry
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.listings import TableListing
from regfs.tree.node import FOREVER, TableDirectory
from regfs.tree.snapshot import NO_RECORDS, KeptNode
from regfs.tree.unlisted_xattrs import XattrsWithUnlisted

log = logging.getLogger(__name__)

OpenContentOf = Callable[[Content], OpenContent]
_new = tuple.__new__
_pack_inode = INODE.pack
_NO_XATTRS: Mapping[bytes, bytes] = {}


class TableSlot:
    """One table, shown as one directory: handles all node ids with the slot's number."""

    __slots__ = (
        "__weakref__", "_attributes", "_inode", "_slots", "base", "changing", "directory", "found_in", "generation",
        "has_placeholder", "inode_offsets", "lookups", "recent", "record", "tree",
    )  # fmt: skip

    def __init__(
        self, slots: TableSlots, directory: TableDirectory, *, number: int, generation: int, inode: int, found_in: int
    ) -> None:
        self.directory = directory
        self.base = number << SLOT_SHIFT
        self.generation = generation
        self.found_in = found_in
        """The node id of the parent directory."""
        self.changing: bytes | None = None
        """The name in *found_in*, if its meaning may change."""
        self.lookups = 0
        self.record = 0
        """The number of its record (Records)."""
        self.tree: FileTree | None = None
        """The table, while it is in use; load() brings it back."""
        self.recent = False
        self.has_placeholder = False
        """Whether the kernel has placeholder attributes from a listing, and not the real ones."""
        self.inode_offsets: Mapping[int, int] = {}
        """By layer: the inode number minus the key. Known once the table was loaded, and then kept."""
        self._slots = slots
        self._inode = INODE.pack(inode)
        self._attributes = b""

    @property
    def root(self) -> int:
        """The node of the directory that the table is shown as."""
        return self.base | TABLE_ROOT

    def load(self) -> FileTree:
        """Return the table. May download and unpack every layer of the image first: gigabytes, and minutes.

        Raises the errors of this work, but never NotFound.
        """
        self.recent = True
        tree = self.tree
        if tree is None:
            try:
                tree = self.directory.load()
            except NotFound as missing:
                # The registry lacks a layer. After ENOENT the kernel would cache for ever that the name looked up here
                # does not exist.
                raise BadContent(f"{self.directory.key} cannot be made: {missing}") from missing
            self._keep(tree)
        return tree

    def close_if_idle(self) -> bool:
        """Release the table. It stays open while a thread works with it or a file in it is open."""
        self.tree = None
        return True

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """See Tree.lookup; entries of a table are not counted."""
        self.recent = True
        tree = self.tree or self.load()
        at = parent & KEY_MASK
        key, attributes = tree.lookup(tree.root if at == TABLE_ROOT else at, name)
        inode = _pack_inode(key + self.inode_offsets[key >> LAYER_SHIFT])
        # tuple.__new__ saves the call of NamedTuple's constructor: look-ups are the most frequent requests.
        return _new(FoundEntry, (self.base | key, inode + attributes, FOREVER, self.generation))

    def attributes(self, node: int) -> FoundEntry:
        """See Tree.attributes."""
        key = node & KEY_MASK
        if key == TABLE_ROOT:
            return FoundEntry(node, self.root_attributes(), FOREVER, self.generation)
        attributes = self.load().attributes(key)
        inode = INODE.pack(key + self.inode_offsets[key >> LAYER_SHIFT])
        return FoundEntry(node, inode + attributes, FOREVER, self.generation)

    def root_attributes(self) -> bytes:
        """Return struct fuse_attr of the directory that the table is shown as. Waits and raises as load() does.

        The attributes are kept: if a later look-up failed, the kernel would drop the directory and all mounts below it.
        """
        if not self._attributes:
            self.load()
        self.has_placeholder = False
        return self._attributes

    def root_attributes_at_once(self) -> bytes:
        """Return root_attributes(), or placeholders until the table is loaded. Does not wait."""
        if not self._attributes:
            tree = self.directory.load_at_once()
            if tree is None:
                self.has_placeholder = True
                return self._inode + without_change_time(self.directory.placeholder().pack())
            self._keep(tree)
        return self._attributes

    def enter(self, node: int) -> bool:
        """See Tree.enter."""
        if not self.has_placeholder or node != self.root:
            return False
        self.root_attributes()
        return True

    def parent(self, node: int) -> int:
        """See Tree.parent."""
        if node == self.root:
            return self.found_in
        tree = self.load()
        above = tree.parent(node & KEY_MASK)
        return self.root if above == tree.root else self.base | above

    def listing(self, node: int) -> TableListing:
        """See Tree.listing."""
        tree = self.load()
        return TableListing(
            tree, _key(tree, node), base=self.base, generation=self.generation, inode_offsets=self.inode_offsets
        )

    def read_link(self, node: int) -> bytes:
        """See Tree.read_link."""
        tree = self.load()
        return tree.target(_key(tree, node))

    def open(self, node: int) -> OpenContent:
        """See Tree.open."""
        tree = self.load()
        content = self._slots.open_content(tree.content(_key(tree, node)))
        content.keeps = tree  # an open file keeps its image in use
        return content

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """See Tree.read_following."""
        found = [] if self.tree is None else self.tree.following(node & KEY_MASK, limit)
        following = [(key, at) for key, at in found if at.size <= len(buffer)]
        if not following:
            return []
        layer, start, _ = following[0][1]
        end = start + len(buffer)
        near = [(key, at.offset - start, at.size) for key, at in following if start <= at.offset <= end - at.size]
        if not near:
            return []
        content = self._slots.open_content(Span(layer, start, near[-1][1] + near[-1][2]))
        try:
            content.read_into(buffer)
        finally:
            content.close()
        view = memoryview(buffer)
        return [(self.base | key, bytes(view[begin : begin + length])) for key, begin, length in near]

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """See Tree.xattrs."""
        if self.has_placeholder and node == self.root:
            return _NO_XATTRS  # `ls -l` of the parent asks for these, and must not download the image
        tree = self.load()
        key = _key(tree, node)
        origin = self.directory.origin
        if origin is None:
            return tree.xattrs(key)
        return XattrsWithUnlisted(tree.xattrs(key), partial(origin, key >> LAYER_SHIFT))

    def name_of(self, node: int) -> str:
        """See Tree.name_of. Names of entries are read from the table, not kept in memory."""
        directory, tree = self.directory.key, self.tree
        if node == self.root or tree is None:
            return directory
        try:
            return f"{directory}/{os.fsdecode(tree.path(node & KEY_MASK))}".rstrip("/")
        except Exception as error:  # the caller is reporting another failure, which must not be replaced
            log.debug("the name of node %#x of %s", node, directory, exc_info=error)
            return f"{directory}, node {node & KEY_MASK:#x}"

    def _keep(self, tree: FileTree) -> None:
        if not self.inode_offsets:
            self.inode_offsets = self._slots.numbers.of_layers(self.directory.identity, tree.first_rows())
        if not self._attributes:
            self._attributes = self._inode + without_change_time(tree.attributes(tree.root))  # see invented.py
        self.tree = tree
        self._slots.tables.add(self, trees=1)


class TableSlots:
    """All slots in use, by number and by the key of their directory."""

    def __init__(
        self, numbers: InodeNumbers, tables: OpenTables, open_content: OpenContentOf, *, last_slot: int = LAST_SLOT
    ) -> None:
        """*tables* bounds how many tables are in use; *open_content* opens the content of a file."""
        self.numbers = numbers
        self.tables = tables
        self.open_content = open_content
        self.by_number: dict[int, TableSlot] = {}
        """To be read by other modules; only this class adds and removes slots."""
        self._last_slot = last_slot
        self._lock = threading.Lock()
        self._by_key: dict[str, TableSlot] = {}
        self._next = 1
        self._generation = 0
        self.records = NO_RECORDS
        self.tag_above: Callable[[int], str] = lambda _node: ""
        """Returns the key of the tag's directory that an invented node is, or is below."""

    def admit(self, directory: TableDirectory, found_in: int, changing: bytes | None) -> TableSlot:
        """Return the slot of *directory*, found in the node *found_in*, and count one look-up of it.

        *changing* is its name if the name's meaning may change. No network. Raises CacheFailure.
        """
        inode = self.numbers.of_table(directory.identity)
        with self._lock:
            slot = self._by_key.get(directory.key)
            if slot is None:
                number = self._free_number()
                slot = TableSlot(
                    self, directory, number=number, generation=self._generation, inode=inode, found_in=found_in
                )
                self._by_key[directory.key] = self.by_number[number] = slot
            is_known = slot.lookups > 0 and slot.changing == changing
            slot.changing = changing
            slot.lookups += 1
            if is_known:
                self.records.count(slot.record, slot.lookups)
            else:
                record = self.records.keep(self.as_kept(slot))
                self.records.drop(slot.record)
                slot.record = record
            return slot

    def as_kept(self, slot: TableSlot) -> KeptNode:
        """Return *slot* as a plain value."""
        name = None if slot.changing is None else os.fsdecode(slot.changing)
        directory, tag = slot.directory, self.tag_above(slot.found_in)
        return KeptNode(
            slot.root, slot.generation, directory.key, tag, slot.found_in, name, slot.lookups, directory.identity,
            slot.record,
        )  # fmt: skip

    def entry(self, directory: TableDirectory, found_in: int, changing: bytes | None, valid_s: float) -> FoundEntry:
        """Return the entry of *directory* for a look-up, and count the look-up. Loads the table."""
        slot = self.admit(directory, found_in, changing)
        try:
            return FoundEntry(slot.root, slot.root_attributes(), valid_s, slot.generation)
        except BaseException:
            self.forget(slot.root, 1)  # the kernel sends no FORGET for a failed look-up
            raise

    def forget(self, node: int, count: int) -> None:
        """Take back *count* look-ups of *node*; those of entries are not counted.

        The kernel forgets a directory after all that is below it, so the last look-up frees the slot.
        """
        if node & KEY_MASK != TABLE_ROOT:
            return
        with self._lock:
            slot = self.by_number.get(node >> SLOT_SHIFT)
            if slot is None:
                return
            slot.lookups -= count
            if slot.lookups > 0:
                self.records.count(slot.record, slot.lookups)
            else:
                self.records.drop(slot.record)
                del self.by_number[node >> SLOT_SHIFT], self._by_key[slot.directory.key]

    def all(self) -> list[TableSlot]:
        """Return all slots there are now."""
        with self._lock:
            return list(self.by_number.values())

    def restore(self, kept: KeptNode, directory: TableDirectory, changing: bytes | None) -> None:
        """Give *directory* the slot that it has in *kept*, taken over from another process."""
        inode = self.numbers.of_table(directory.identity)
        number = kept.node >> SLOT_SHIFT
        slot = TableSlot(
            self, directory, number=number, generation=kept.generation, inode=inode, found_in=kept.found_in
        )
        slot.changing, slot.lookups, slot.record = changing, kept.lookups, kept.record
        slot.has_placeholder = True  # the kernel may have placeholders from a listing
        with self._lock:
            self._by_key[directory.key] = self.by_number[number] = slot

    def next_free(self) -> tuple[int, int]:
        """Return the number of the slot that is tried next, and the generation of slots."""
        with self._lock:
            return self._next, self._generation

    def restore_next(self, number: int, generation: int) -> None:
        """Continue with the slot *number*, so that ids that the kernel knows are not reused at once."""
        with self._lock:
            self._next, self._generation = number, generation

    def _free_number(self) -> int:
        if len(self.by_number) >= self._last_slot:
            raise CacheFailure(f"the kernel holds {self._last_slot} directories of tables; no more can be shown")
        while True:
            number = self._next
            if number > self._last_slot:
                number, self._generation = 1, self._generation + 1
            self._next = number + 1
            self.records.free_slot(number + 1, self._generation)
            if number not in self.by_number:
                return number


def _key(tree: FileTree, node: int) -> int:
    """Return the key in *tree* of the node id *node*."""
    key = node & KEY_MASK
    return tree.root if key == TABLE_ROOT else key
