"""The tree by node ids: what both drivers talk to.

    node id = space (20 bits) << 44 | key (44 bits)

Space 0 holds the invented nodes: their key is a hash of what they are, 1 is the root. Every rootfs/ or layers/N/tree/
that was looked up has a space of its own, in which the key is that of its table (layer << 32 | row), and _DOOR is the
directory itself, which is there before its table is. So nothing is kept for a file of an image, and a node id is a
function of where the table is seen and of the row. Directories that are seen at two places have two ids, because a
directory may have one name in the kernel; their inode numbers, which are a function of the image and the row, agree.
A door has the inode number that all numbers below it are mixed with: its row is no entry of its table.

What is invented is kept from the look-up that finds it to the forget() that gives it back; a space, while its door is.
Used by mount/. Thread rule: any thread. The lock guards the tables of this module; nothing is asked under it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from regfs.errors import BadContent, IsADirectory, NameTooLong, NotADirectory, NotASymlink, NotFound, StaleNode
from regfs.model.attributes import Attributes
from regfs.model.names import NAME_MAX
from regfs.rootfs.row_tree import RowTree
from regfs.store.content import Content, OpenContent, Packed
from regfs.tree.control import LiveFile
from regfs.tree.listings import INODE, InventedListing, Listing, RowListing
from regfs.tree.node import FOREVER, Directory, File, Link, Node, RowsDirectory, inode_number
from regfs.tree.node import OpenFile as OpenFile
from regfs.tree.repository import TagDirectory
from regfs.tree.root import Root

log = logging.getLogger(__name__)

ROOT = 1
SPACE_SHIFT = 44
_KEY_MASK = (1 << SPACE_SHIFT) - 1
_DOOR = _KEY_MASK
_SPACES = 1 << 20
# For how long the kernel may believe the attributes of a door whose table is not there yet.
_DOOR_VALID_S = 1.0
_NODE_VALID_S = 60.0
_NO_XATTRS: Mapping[bytes, bytes] = {}


class Found(NamedTuple):
    """A node: its id, struct fuse_attr (88 bytes), and for how many seconds both hold."""

    node: int
    attributes: bytes
    valid_s: float


class Usage(NamedTuple):
    """The room on the cache's file system, for statfs: bytes, and files (inodes)."""

    total_bytes: int
    free_bytes: int
    total_files: int
    free_files: int


@dataclass(slots=True)
class _Kept:
    node: Node
    parent: int
    changing: bytes | None
    lookups: int = 0


class _Space:
    """One visible table. The inode numbers below it are its key mixed with the identity of what it shows."""

    __slots__ = ("base", "changing", "door", "inode_base", "lookups", "parent", "rows")

    def __init__(self, door: RowsDirectory, number: int, parent: int) -> None:
        self.door = door
        self.base = number << SPACE_SHIFT
        self.inode_base = inode_number(door.identity)
        self.parent = parent
        self.changing: bytes | None = None
        self.lookups = 0
        self.rows: RowTree | None = None

    def table(self) -> RowTree:
        """Return the table, waiting for it the first time."""
        if self.rows is None:
            try:
                self.rows = self.door.rows()
            except NotFound as missing:
                # The registry lacks a part of what the directory is made of. To whoever looks a name up in it, that
                # must not mean that the name is not there: the kernel would believe it for ever.
                raise BadContent(f"{self.door.key} cannot be made: {missing}") from missing
        return self.rows

    def key(self, rows: RowTree, node: int) -> int:
        """Return the key in *rows* of a node of this space."""
        key = node & _KEY_MASK
        return rows.root if key == _DOOR else key

    def packed(self, key: int, attributes: bytes) -> bytes:
        """Return struct fuse_attr of an entry of the table."""
        return INODE.pack(self.inode_base ^ key) + attributes


class Tree:
    """All that a mount shows. Every call may raise any RegfsError, and waits as the thread's patience allows."""

    def __init__(self, root: Root, *, open_content: Callable[[Content], OpenContent], cache: Path) -> None:
        self._open_content = open_content
        self._cache = cache
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept] = {ROOT: _Kept(root, ROOT, None, 1)}
        self._spaces: dict[int, _Space] = {}

    def lookup(self, parent: int, name: bytes) -> Found:
        """Return the entry *name* of the directory *parent*. Counts as one look-up of what it returns."""
        if len(name) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes; {NAME_MAX} are allowed")
        number = parent >> SPACE_SHIFT
        if number:
            space = self._space(number)
            rows = space.rows or space.table()
            at = parent & _KEY_MASK
            key, attributes = rows.lookup(rows.root if at == _DOOR else at, name)
            return Found(space.base | key, INODE.pack(space.inode_base ^ key) + attributes, FOREVER)
        directory = self._directory(parent)
        found = directory.lookup(os.fsdecode(name))
        changing = None if found.valid_s == FOREVER else name
        if isinstance(found.node, RowsDirectory):
            return self._admit_door(found.node, parent, changing, found.valid_s)
        return self._admit(found.node, parent, changing, found.node.attributes(), found.valid_s)

    def attributes(self, node: int) -> Found:
        """Return the attributes of *node*."""
        number = node >> SPACE_SHIFT
        if not number:
            kept = self._keep(node)
            valid_s = 0.0 if isinstance(kept.node, LiveFile) else _NODE_VALID_S
            return Found(node, _packed(kept.node, kept.node.attributes()), valid_s)
        space = self._space(number)
        if node & _KEY_MASK == _DOOR:
            return self._door(space)
        return Found(node, space.packed(node & _KEY_MASK, space.table().attributes(node & _KEY_MASK)), FOREVER)

    def enter(self, node: int) -> bool:
        """Make ready for somebody who goes into the directory *node* (chdir, chroot), waiting for its table.

        Return whether the attributes of *node* became other ones by that.
        """
        number = node >> SPACE_SHIFT
        if not number or node & _KEY_MASK != _DOOR:
            return False
        space = self._space(number)
        was_there = space.rows is not None
        space.table()
        return not was_there

    def parent(self, node: int) -> int:
        """Return the directory that *node* was found in; the root is its own parent."""
        number = node >> SPACE_SHIFT
        if not number:
            return self._keep(node).parent
        space = self._space(number)
        key = node & _KEY_MASK
        if key == _DOOR:
            return space.parent
        rows = space.table()
        above = rows.parent(key)
        return space.base | (_DOOR if above == rows.root else above)

    def listing(self, node: int) -> Listing:
        """Return the entries of the directory *node*. Raises NotADirectory."""
        number = node >> SPACE_SHIFT
        if number:
            space = self._space(number)
            rows = space.table()
            return RowListing(rows, space.key(rows, node), base=space.base, inode_base=space.inode_base)
        return InventedListing(self._directory(node).children())

    def read_link(self, node: int) -> bytes:
        """Return the target of the symbolic link *node*. Raises NotASymlink."""
        number = node >> SPACE_SHIFT
        if number:
            space = self._space(number)
            rows = space.table()
            return rows.target(space.key(rows, node))
        link = self._keep(node).node
        if not isinstance(link, Link):
            raise NotASymlink(f"{link.key} is no symbolic link")
        return link.target

    def open(self, node: int) -> OpenFile:
        """Open the regular file *node*; may block on the network. Raises IsADirectory."""
        number = node >> SPACE_SHIFT
        if number:
            space = self._space(number)
            rows = space.table()
            return self._open_content(rows.content(space.key(rows, node)))
        file = self._keep(node).node
        if not isinstance(file, File):
            raise IsADirectory(f"{file.key} is not a file")
        return file.open()

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """Return nodes and bytes of the small files that a reader of all files is likely to open after *node*.

        At most *limit* files, and as many bytes as *buffer* holds, which they are read into with one read; none for
        what is no table's. They may be hidden in this one, and nobody may have looked them up. Does not wait.
        """
        space = self._spaces.get(node >> SPACE_SHIFT)
        if space is None or space.rows is None:
            return []
        following = space.rows.following(node & _KEY_MASK, limit)
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
        return [(space.base | key, bytes(view[begin : begin + length])) for key, begin, length in near]

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes of *node*."""
        number = node >> SPACE_SHIFT
        if not number:
            invented = self._keep(node).node
            return invented.xattrs() if isinstance(invented, TagDirectory) else _NO_XATTRS
        if node & _KEY_MASK == _DOOR and self._space(number).rows is None:
            return _NO_XATTRS
        space = self._space(number)
        rows = space.table()
        return rows.xattrs(space.key(rows, node))

    def name_of(self, node: int) -> str:
        """Return the path of *node* for messages, or what is known of it; a tag has its digest behind it. Never fails.

        Nothing is kept for this: the names of a table's entries are read from it. Does not wait.
        """
        number, key = node >> SPACE_SHIFT, node & _KEY_MASK
        if not number:
            kept = self._kept.get(node)
            return f"node {node:#x}" if kept is None else kept.node.key or "/"
        space = self._spaces.get(number)
        if space is None:
            return f"node {node:#x}"
        door = space.door.key
        if key == _DOOR or space.rows is None:
            return door
        try:
            return f"{door}/{os.fsdecode(space.rows.path(key))}".rstrip("/")
        except Exception as error:  # a failure is being told: this must not take its place
            log.debug("the name of node %#x of %s", key, door, exc_info=error)
            return f"{door}, node {key:#x}"

    def forget(self, node: int, count: int) -> None:
        """Give back *count* look-ups of *node*; entries of tables need not be given back."""
        number = node >> SPACE_SHIFT
        if number and node & _KEY_MASK != _DOOR:
            return
        with self._lock:
            held: _Kept | _Space | None = self._spaces.get(number) if number else self._kept.get(node)
            if held is None or node == ROOT:
                return
            held.lookups -= count
            if held.lookups > 0:
                return
            if number:
                # The kernel forgets a directory after all that is below it, so nobody is in this table any more.
                del self._spaces[number]
            else:
                del self._kept[node]

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return directory and name of every look-up whose answer holds for a time, as far as it was not given back."""
        with self._lock:
            held: list[_Kept | _Space] = [*self._kept.values(), *self._spaces.values()]
        return [(each.parent, each.changing) for each in held if each.changing is not None]

    def usage(self) -> Usage:
        """Return the room there is for the cache; no network."""
        try:
            room = os.statvfs(self._cache)
        except OSError:
            return Usage(0, 0, 0, 0)
        size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
        return Usage(size, free, room.f_files, room.f_favail)

    # Nodes and spaces.

    def _keep(self, node: int) -> _Kept:
        try:
            return self._kept[node]
        except KeyError:
            raise StaleNode(f"node {node:#x} was let go") from None

    def _space(self, number: int) -> _Space:
        try:
            return self._spaces[number]
        except KeyError:
            raise StaleNode(f"table {number:#x} was let go") from None

    def _directory(self, node: int) -> Directory:
        directory = self._keep(node).node
        if not isinstance(directory, Directory):
            raise NotADirectory(f"{directory.key} is not a directory")
        return directory

    def _admit(self, node: Node, parent: int, changing: bytes | None, attributes: Attributes, valid_s: float) -> Found:
        """Give *node* its id, or find the one that it has. *changing*: its name, where that may mean another."""
        number = max(2, inode_number(node.key) & _KEY_MASK)
        with self._lock:
            while (kept := self._kept.get(number)) is not None and kept.node.key != node.key:
                number = max(2, (number + 1) & _KEY_MASK)
            if kept is None:
                kept = self._kept[number] = _Kept(node, parent, changing)
            # The same directory may have become something else meanwhile: a tag was pushed where a namespace was, or
            # a refusal was lifted. Who holds the old node shall see the new one.
            kept.node = node
            kept.changing = changing
            kept.lookups += 1
        return Found(number, _packed(node, attributes), valid_s)

    def _admit_door(self, door: RowsDirectory, parent: int, changing: bytes | None, valid_s: float) -> Found:
        """Give the table behind *door* its space, or find the one that it has."""
        number = max(1, inode_number(door.key) % _SPACES)
        with self._lock:
            while (space := self._spaces.get(number)) is not None and space.door.key != door.key:
                number = max(1, (number + 1) % _SPACES)
            if space is None:
                space = self._spaces[number] = _Space(door, number, parent)
            space.changing = changing
            space.lookups += 1
        try:
            found = self._door(space)
        except BaseException:
            self.forget(space.base | _DOOR, 1)  # who gets no answer gives nothing back
            raise
        return found._replace(valid_s=min(found.valid_s, valid_s))

    def _door(self, space: _Space) -> Found:
        if space.rows is None:
            space.rows = space.door.rows_at_once()
        node = space.base | _DOOR
        inode = INODE.pack(space.inode_base)
        if space.rows is None:
            return Found(node, inode + space.door.attributes().pack(), _DOOR_VALID_S)
        return Found(node, inode + space.rows.attributes(space.rows.root), FOREVER)


def _packed(node: Node, attributes: Attributes) -> bytes:
    return INODE.pack(inode_number(node.key)) + attributes.pack()
