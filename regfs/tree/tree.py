"""The tree by node ids: what both drivers talk to.

Invented nodes are kept from the look-up that finds them to the forget() that gives them back. Their ids are hashes of
what they are. Of a table, a rootfs/ or layers/N/tree/, only the directory that it is shown as is kept
(shown_tables.py): nothing is kept for a file of an image, whose node id is a function of the place and of its row.
model/node_id.py has the layout of node ids, inode_numbers.py that of st_ino.

Used by mount/. Thread rule: any thread. The lock guards the invented nodes; nothing is asked under it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from regfs.errors import IsADirectory, NameTooLong, NotADirectory, NotASymlink, StaleNode
from regfs.model.attributes import Attributes
from regfs.model.names import NAME_MAX
from regfs.model.node_id import KEY_MASK, LAYER_SHIFT, ROOT, SLOT_SHIFT, TABLE_ROOT, invented_node, next_invented
from regfs.model.whiteout import is_too_long
from regfs.store.content import Content, OpenContent, Packed
from regfs.store.open_tables import OpenTables
from regfs.tree.control import LiveFile
from regfs.tree.inode_numbers import InodeNumbers
from regfs.tree.inside import Inside
from regfs.tree.listings import INODE, PLACEHOLDER_VALID_S, InventedListing, Listed, Listing, RowListing
from regfs.tree.node import FOREVER, Child, Dated, Directory, File, Invented, Link, TableDirectory
from regfs.tree.node import OpenFile as OpenFile
from regfs.tree.repository import TagDirectory
from regfs.tree.root import Root
from regfs.tree.shown_tables import ShownTable, ShownTables
from regfs.tree.usage import CacheUsage, Usage

log = logging.getLogger(__name__)

_NODE_VALID_S = 60.0
# A date comes with an image's config, which another request may bring at any time.
_UNDATED_VALID_S = 2.0
_NO_XATTRS: Mapping[bytes, bytes] = {}


class Found(NamedTuple):
    """A node: its id, struct fuse_attr (88 bytes), and for how many seconds both hold."""

    node: int
    attributes: bytes
    valid_s: float


@dataclass(slots=True)
class _Kept:
    node: Invented
    parent: int
    changing: bytes | None
    lookups: int = 0


class Tree:
    """All that a mount shows. Every call may raise any RegfsError, and waits as the thread's deadline allows."""

    def __init__(
        self,
        root: Root,
        *,
        numbers: InodeNumbers,
        open_content: Callable[[Content], OpenContent],
        cache: CacheUsage,
        inside: Inside,
        tables: OpenTables,
    ) -> None:
        """*tables* bounds which images are in use, and which tables are open."""
        self._numbers = numbers
        self._inside = inside
        self._open_content = open_content
        self._cache = cache
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept] = {ROOT: _Kept(root, ROOT, None, 1)}
        self._tables = ShownTables(numbers, tables)
        self._shown_at = self._tables.by_number.get

    def lookup(self, parent: int, name: bytes) -> Found:
        """Return the entry *name* of the directory *parent*. Counts as one look-up of what it returns."""
        if len(name) > NAME_MAX and is_too_long(name):
            raise NameTooLong(f"a name of {len(name)} bytes; {NAME_MAX} are allowed")
        shown = self._shown_at(parent >> SLOT_SHIFT)
        if shown is not None:
            shown.recent = True
            rows = shown.rows or shown.table()
            at = parent & KEY_MASK
            key, attributes = rows.lookup(rows.root if at == TABLE_ROOT else at, name)
            inode = INODE.pack(key + shown.raised_by[key >> LAYER_SHIFT])
            return Found(shown.base | key, inode + attributes, FOREVER)
        found = self._inside.lookup(parent, self._directory(parent), name)
        changing = None if found.valid_s == FOREVER else name
        if isinstance(found.node, TableDirectory):
            return self._admit_table(found.node, parent, changing, found.valid_s)
        return self._admit(found.node, parent, changing, found.valid_s)

    def attributes(self, node: int) -> Found:
        """Return the attributes of *node*."""
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is None:
            invented = self._keep(node).node
            attributes = invented.attributes()
            valid_s = min(_NODE_VALID_S, _attributes_valid_s(invented, attributes))
            return Found(node, self._packed(node, attributes), valid_s)
        key = node & KEY_MASK
        if key == TABLE_ROOT:
            return Found(node, shown.attributes(), FOREVER)
        return Found(node, shown.packed(key, shown.table().attributes(key)), FOREVER)

    def enter(self, node: int) -> bool:
        """Wait for the real attributes of the directory *node*, where a listing told what stands for them.

        Return whether one did, so that the kernel is to forget those: chdir, chroot and opendir come a moment after a
        listing, and a program that goes in to copy all of it asks for the attributes then.
        """
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is None or not shown.has_placeholder or node != shown.root:
            return False
        shown.attributes()
        return True

    def parent(self, node: int) -> int:
        """Return the directory that *node* was found in; the root is its own parent."""
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is None:
            return self._keep(node).parent
        if node == shown.root:
            return shown.parent
        rows = shown.table()
        above = rows.parent(node & KEY_MASK)
        return shown.root if above == rows.root else shown.base | above

    def listing(self, node: int) -> Listing:
        """Return the entries of the directory *node*. Raises NotADirectory."""
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is None:
            children = self._inside.children(node, self._directory(node))
            return InventedListing(children, inode_of=self._inode_of, table_at_once=partial(self._at_once, node))
        rows = shown.table()
        return RowListing(rows, shown.key(rows, node), base=shown.base, raised_by=shown.raised_by)

    def read_link(self, node: int) -> bytes:
        """Return the target of the symbolic link *node*. Raises NotASymlink."""
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is not None:
            rows = shown.table()
            return rows.target(shown.key(rows, node))
        link = self._keep(node).node
        if not isinstance(link, Link):
            raise NotASymlink(f"{link.key} is no symbolic link")
        return link.target

    def open(self, node: int) -> OpenFile:
        """Open the regular file *node*; may block on the network. Raises IsADirectory."""
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is not None:
            rows = shown.table()
            content = self._open_content(rows.content(shown.key(rows, node)))
            content.keeps = rows  # while a file is open, its image is in use
            return content
        file = self._keep(node).node
        if not isinstance(file, File):
            raise IsADirectory(f"{file.key} is not a file")
        return file.open()

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """Return nodes and bytes of the small files that a reader of all files is likely to open after *node*.

        At most *limit* files, and as many bytes as *buffer* holds, which they are read into with one read; none for
        what is no table's. They may be hidden in this one, and nobody may have looked them up. Does not wait.
        """
        shown = self._shown_at(node >> SLOT_SHIFT)
        rows = None if shown is None else shown.rows
        if shown is None or rows is None:
            return []
        following = rows.following(node & KEY_MASK, limit)
        if not following:
            return []
        layer, start, _ = following[0][1]
        end = start + len(buffer)
        near = [(key, at.offset - start, at.size) for key, at in following if at.offset + at.size <= end]
        if not near:
            return []
        content = self._open_content(Packed(layer, start, near[-1][1] + near[-1][2]))
        try:
            content.read_into(buffer)
        finally:
            content.close()
        view = memoryview(buffer)
        return [(shown.base | key, bytes(view[begin : begin + length])) for key, begin, length in near]

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes of *node*."""
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is None:
            invented = self._keep(node).node
            return self._inside.xattrs(node, invented) if isinstance(invented, TagDirectory) else _NO_XATTRS
        if shown.has_placeholder and node == shown.root:
            return _NO_XATTRS  # `ls -l` asks for them too
        rows = shown.table()
        return rows.xattrs(shown.key(rows, node))

    def name_of(self, node: int) -> str:
        """Return the path of *node* for messages, or what is known of it; a tag has its digest behind it. Never fails.

        Nothing is kept for this: the names of a table's entries are read from it. Does not wait.
        """
        shown = self._shown_at(node >> SLOT_SHIFT)
        if shown is None:
            kept = self._kept.get(node)
            return f"node {node:#x}" if kept is None else kept.node.key or "/"
        directory, rows = shown.directory.key, shown.rows
        if node == shown.root or rows is None:
            return directory
        key = node & KEY_MASK
        try:
            return f"{directory}/{os.fsdecode(rows.path(key))}".rstrip("/")
        except Exception as error:  # a failure is being told: this must not take its place
            log.debug("the name of node %#x of %s", key, directory, exc_info=error)
            return f"{directory}, node {key:#x}"

    def forget(self, node: int, count: int) -> None:
        """Give back *count* look-ups of *node*; entries of tables need not be given back."""
        if self._shown_at(node >> SLOT_SHIFT) is not None:
            self._tables.forget(node, count)
            return
        with self._lock:
            kept = self._kept.get(node)
            if kept is None or node == ROOT:
                return
            kept.lookups -= count
            if kept.lookups > 0:
                return
            del self._kept[node]
        self._inside.forget(node, kept.parent, kept.changing)

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return directory and name of every look-up whose answer holds for a time, as far as it was not given back."""
        with self._lock:
            held: list[_Kept | ShownTable] = [*self._kept.values()]
        held += self._tables.all()
        return [(each.parent, each.changing) for each in held if each.changing is not None]

    def usage(self) -> Usage:
        """Return the room there is for the cache; no network. Raises WouldBlock."""
        return self._cache.now()

    # Invented nodes, and the directories that tables are shown as.

    def _keep(self, node: int) -> _Kept:
        try:
            return self._kept[node]
        except KeyError:
            raise StaleNode(f"node {node:#x} was let go") from None

    def _directory(self, node: int) -> Directory:
        directory = self._keep(node).node
        if not isinstance(directory, Directory):
            raise NotADirectory(f"{directory.key} is not a directory")
        return directory

    def _admit(self, node: Invented, parent: int, changing: bytes | None, valid_s: float) -> Found:
        """Give *node* its id, or find the one that it has. *changing*: its name, where that may mean another."""
        attributes = node.attributes()
        with self._lock:
            number = self._number_of(node.key)
            kept = self._kept.get(number)
            if kept is None:
                kept = self._kept[number] = _Kept(node, parent, changing)
            # The same directory may have become something else meanwhile: a tag was pushed where a namespace was, or
            # a refusal was lifted. A program that holds the old node must see the new one.
            kept.node = node
            kept.changing = changing
            kept.lookups += 1
        return Found(number, self._packed(number, attributes), min(valid_s, _attributes_valid_s(node, attributes)))

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
        """Return struct fuse_attr of the invented node *node*."""
        return INODE.pack(self._numbers.of_invented(node)) + attributes.pack()

    def _admit_table(self, directory: TableDirectory, parent: int, changing: bytes | None, valid_s: float) -> Found:
        """Give the table behind *directory* its place, or find the one that it has; waits for the table."""
        shown = self._tables.admit(directory, parent, changing)
        try:
            return Found(shown.root, shown.attributes(), valid_s)
        except BaseException:
            self._tables.forget(shown.root, 1)  # a look-up that gets no answer is not given back
            raise

    def _at_once(self, parent: int, child: Child) -> Listed:
        """Do the same for a listing of *parent*, which does not wait."""
        assert child.table is not None
        name = os.fsencode(child.name)
        shown = self._tables.admit(child.table, parent, name)
        return Listed(name, shown.root, shown.attributes_at_once(), PLACEHOLDER_VALID_S)


def _attributes_valid_s(node: Invented, attributes: Attributes) -> float:
    """Return for how many seconds the kernel may believe the attributes of *node*."""
    if isinstance(node, LiveFile):
        return 0.0
    return _UNDATED_VALID_S if attributes.mtime_ns == 0 and isinstance(node, Dated) else FOREVER
