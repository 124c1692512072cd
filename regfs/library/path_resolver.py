"""Resolves the library's paths to nodes of the tree (model/node_id.py): look-ups, symbolic links, a bounded cache.

A link is followed inside the rootfs/ or layers/N/tree/ that it stands in, as after chroot(2): an absolute target begins
there, and `..` does not leave it. An entry of a table is looked up each time, which takes microseconds. A name above it
(registry, repository, tag, `rootfs`) is looked up once, and keeps its meaning while it is in the cache. Used by
path.py. Thread rule: any thread; the lock guards the remembered look-ups, and no thread waits for the network under it.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from cachetools import LRUCache

from regfs.errors import BadLayer, LinkLoop, NotFound, StaleNode
from regfs.library.failures import asking
from regfs.model.attributes import Attributes, mode_of
from regfs.model.node_id import KEY_MASK, ROOT, TABLE_ROOT, is_entry
from regfs.model.path_walk import PathWalk
from regfs.tree.entry import INODE, FoundEntry, ListedEntry
from regfs.tree.node import OpenFile
from regfs.tree.tree import Tree

T = TypeVar("T")
Names = tuple[bytes, ...]

_REMEMBERED = 2048
_LISTED_AT_ONCE = 1000


class Entry(NamedTuple):
    """A file or directory: its node, its inode number and its attributes."""

    node: int
    inode: int
    attributes: Attributes

    @classmethod
    def of(cls, found: FoundEntry | ListedEntry) -> Entry:
        """Return the Entry of *found*, which has a struct fuse_attr."""
        packed = found.attributes
        return cls(found.node, INODE.unpack_from(packed)[0], Attributes.unpack(packed[INODE.size :]))


class Files:
    """The files of *tree* by path. Each method waits up to *timeout_s* without progress; errors of failures.py."""

    def __init__(self, tree: Tree, *, timeout_s: float) -> None:
        self._tree = tree
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._remembered = _Remembered(_REMEMBERED, tree)

    def entry(self, names: Names, *, follow: bool = True) -> Entry:
        """Return the entry at the path *names*. A link at its end is followed unless *follow* is False."""
        return self._ask(lambda: Entry.of(self._walk(names, follow=follow)))

    def children(self, names: Names) -> list[tuple[bytes, int]]:
        """Return the names in the directory *names* with their file types (stat.S_IFMT of the mode)."""
        return self._ask(lambda: [(name, stat.S_IFMT(mode)) for name, mode in self._listed(names)])

    def read_link(self, names: Names) -> bytes:
        """Return the target of the symbolic link *names*."""
        return self._ask(lambda: self._tree.read_link(self._walk(names, follow=False).node))

    def xattrs(self, names: Names, *, follow: bool) -> Mapping[bytes, bytes]:
        """Return the extended attributes of *names*."""
        return self._ask(lambda: self._tree.xattrs(self._walk(names, follow=follow).node))

    def open(self, names: Names) -> OpenFile:
        """Open the regular file that *names* leads to."""
        return self._ask(lambda: self._tree.open(self._walk(names, follow=True).node))

    def read(self, file: OpenFile, offset: int, size: int) -> bytes:
        """Return *size* bytes of *file* from *offset* on, fewer at its end. May block on the network."""
        with asking(self._timeout_s):
            return file.read_at(offset, size)

    def close(self) -> None:
        """Give all look-ups back to the tree, so that it can close its tables."""
        with self._lock:
            self._remembered.drop_all()

    def _ask(self, question: Callable[[], T]) -> T:
        """Call *question* with the deadline; call it again if another thread evicted one of its nodes."""
        with asking(self._timeout_s):
            try:
                return question()
            except StaleNode:
                self.close()
                return question()

    def _walk(self, names: Sequence[bytes], *, follow: bool) -> FoundEntry:
        walk = PathWalk(names)
        at, top, inside = self._tree.attributes(ROOT), ROOT, list(names)
        while (name := _next(walk)) is not None:
            if name == b"..":
                if at.node != top:
                    at = self._tree.attributes(self._tree.parent(at.node))
                continue
            try:
                found = self._lookup(at.node, name)
            except NotFound as missing:
                if not is_entry(at.node):
                    raise
                path = b"/".join(inside).decode(errors="backslashreplace")
                raise NotFound(f"/{path}: no such file or directory") from missing
            if _is_link(found) and (follow or walk.rest()):
                start = _follow(walk, self._tree.read_link(found.node), at.node, top)
                at = at if start == at.node else self._tree.attributes(start)
                continue
            at = found
            if is_entry(at.node) and at.node & KEY_MASK == TABLE_ROOT:
                top, inside = at.node, walk.rest()
        return at

    def _lookup(self, directory: int, name: bytes) -> FoundEntry:
        if is_entry(directory):
            return self._tree.lookup(directory, name)
        key = directory, name
        with self._lock:
            known = self._remembered.get(key)
        if known is not None:
            return known
        found = self._tree.lookup(directory, name)
        with self._lock:
            if key in self._remembered:  # another thread looked the same name up: give the surplus look-up back
                self._tree.forget(found.node, 1)
            else:
                self._remembered[key] = found
        return found

    def _listed(self, names: Names) -> Iterator[tuple[bytes, int]]:
        listing = self._tree.listing(self._walk(names, follow=True).node)
        start = 0
        while entries := listing.entries(start, _LISTED_AT_ONCE):
            for entry in entries:
                yield entry.name, mode_of(entry.attributes[INODE.size :])
            start += len(entries)


class _Remembered(LRUCache[tuple[int, bytes], FoundEntry]):
    """An LRU cache of look-ups above the tables; evicting one gives it back to the tree (forget)."""

    def __init__(self, size: int, tree: Tree) -> None:
        super().__init__(size)
        self._tree = tree

    def popitem(self) -> tuple[tuple[int, bytes], FoundEntry]:
        """Remove and return the least recently used one."""
        key, found = super().popitem()
        self._tree.forget(found.node, 1)
        return key, found

    def drop_all(self) -> None:
        """Evict all."""
        while self:
            self.popitem()


def _is_link(found: FoundEntry) -> bool:
    return stat.S_ISLNK(mode_of(found.attributes[INODE.size :]))


def _next(walk: PathWalk) -> bytes | None:
    try:
        return walk.next()
    except BadLayer as loop:
        raise LinkLoop(str(loop)) from loop


def _follow(walk: PathWalk, target: bytes, directory: int, top: int) -> int:
    try:
        return walk.follow(target, directory, root=top)
    except BadLayer as loop:
        raise LinkLoop(str(loop)) from loop
