"""Resolves the library's paths to nodes of the tree (model/node_id.py): look-ups, symbolic links, a bounded cache.

A link is followed inside the rootfs/ or layers/N/tree/ that it stands in, as after chroot(2): an absolute target begins
there, and `..` does not leave it. A name above a table (registry, repository, tag, `rootfs`) is looked up once, and
keeps its meaning while it is in the cache. An entry of a table is looked up each time, which takes microseconds. The
directories that paths led to last are remembered, so that a file of a deep tree costs what one of a flat tree does.
Used by path.py. Thread rule: any thread; the lock guards what is remembered, and no thread waits for the network under
it.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from cachetools import LRUCache

from regfs.errors import BadLayer, LinkLoop, NotADirectory, NotFound, StaleNode
from regfs.library.failures import asking
from regfs.model.attributes import Attributes, mode_of
from regfs.model.node_id import KEY_MASK, ROOT, TABLE_ROOT, is_entry
from regfs.model.path_walk import PathWalk
from regfs.tree.entry import INODE, FoundEntry, ListedEntry
from regfs.tree.node import OpenFile
from regfs.tree.tree import Tree

T = TypeVar("T")
Names = tuple[bytes, ...]

_REMEMBERED_LOOKUPS = 2048
_REMEMBERED_DIRECTORIES = 1024
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
        self._directories: LRUCache[Names, _Place] = LRUCache(_REMEMBERED_DIRECTORIES)
        """By the path that led to a directory."""
        self._remembered = _Remembered(_REMEMBERED_LOOKUPS, tree, self._directories)

    def entry(self, names: Names, *, follow: bool = True) -> Entry:
        """Return the entry at the path *names*. A link at its end is followed unless *follow* is False."""
        return self._ask(lambda: Entry.of(self._walk(names, follow=follow)))

    def resolved(self, names: Names, *, strict: bool) -> Names:
        """Return the path *names* without links and `..`.

        A name that does not exist raises NotFound if *strict*; else what comes after it is kept as it is written.
        """
        return self._ask(lambda: self._walked(self._root(), names, 0, len(names), lenient=not strict).names)

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

    def _walk(self, names: Names, *, follow: bool) -> FoundEntry:
        """Return what *names* lead to, from the nearest remembered directory on."""
        if not names:
            return self._tree.attributes(ROOT)
        length = len(names) - 1
        above, done = self._nearest(names[:length])
        if done < length:
            above = self._walked(above, names, done, length)
            with self._lock:
                self._directories[names[:length]] = above
        return self._walked(above, names, length, len(names), follow=follow).entry

    def _nearest(self, names: Names) -> tuple[_Place, int]:
        """Return where the longest remembered beginning of *names* leads, and its length."""
        with self._lock:
            for length in range(len(names), 0, -1):
                known = self._directories.get(names[:length])
                if known is not None:
                    return known, length
        return self._root(), 0

    def _root(self) -> _Place:
        return _Place(self._tree.attributes(ROOT), (), ROOT, 0, 0)

    def _walked(
        self, start: _Place, names: Names, done: int, end: int, *, follow: bool = True, lenient: bool = False
    ) -> _Place:
        """Return where the first *end* of *names* lead; the first *done* lead to *start*."""
        walk = _Walk(self._tree, self._lookup, start, names, done, end)
        walk.to_end(follow=follow, lenient=lenient)
        return walk.place()

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


class _Place(NamedTuple):
    """Where a walk stands: at *entry*, whose path without links and `..` is *names*.

    Absolute links begin at the directory *top*, whose path is the first *top_length* of these names. It was reached by
    the first *typed* of the names that were asked for.
    """

    entry: FoundEntry
    names: Names
    top: int
    top_length: int
    typed: int


class _Walk:
    """A walk along *names* up to the first *end* of them, from the place *start*, to which the first *done* led."""

    def __init__(
        self,
        tree: Tree,
        lookup: Callable[[int, bytes], FoundEntry],
        start: _Place,
        names: Names,
        done: int,
        end: int,
    ) -> None:
        self._tree = tree
        self._lookup = lookup
        self._names = names
        self._end = end
        self._left = PathWalk(names[done:end])
        self._at, path, self._top, self._top_length, self._typed = start
        self._path = list(path)
        self._missing = 0
        """How many names at the end of the path are missing."""

    def place(self) -> _Place:
        """Return where the walk stands."""
        return _Place(self._at, tuple(self._path), self._top, self._top_length, self._typed)

    def to_end(self, *, follow: bool, lenient: bool) -> None:
        """Walk to the end, where a link is followed if *follow*. With *lenient* missing names are walked through."""
        while (name := _next(self._left)) is not None:
            if name == b"..":
                self._up()
            elif self._missing:
                self._enter_missing(name)
            else:
                try:
                    self._down(name, follow=follow)
                except (NotFound, NotADirectory):
                    if not lenient:
                        raise
                    self._enter_missing(name)

    def _up(self) -> None:
        if self._missing:
            self._missing -= 1
        elif self._at.node == self._top:
            return
        else:
            self._at = self._tree.attributes(self._tree.parent(self._at.node))
        self._path.pop()

    def _enter_missing(self, name: bytes) -> None:
        self._missing += 1
        self._path.append(name)

    def _down(self, name: bytes, *, follow: bool) -> None:
        directory = self._at.node
        found = self._found(directory, name)
        rest = self._left.rest()
        if _is_link(found) and (follow or rest):
            start = _follow(self._left, self._tree.read_link(found.node), directory, self._top)
            if start != directory:
                self._at = self._tree.attributes(start)
                del self._path[self._top_length :]
            return
        self._at = found
        self._path.append(name)
        if is_entry(found.node) and found.node & KEY_MASK == TABLE_ROOT:
            self._top, self._top_length = found.node, len(self._path)
            self._typed = max(0, self._end - len(rest))

    def _found(self, directory: int, name: bytes) -> FoundEntry:
        try:
            return self._lookup(directory, name)
        except NotFound as missing:
            if not is_entry(directory):
                raise
            path = b"/".join(self._names[self._typed :]).decode(errors="backslashreplace")
            raise NotFound(f"/{path}: no such file or directory") from missing


class _Remembered(LRUCache[tuple[int, bytes], FoundEntry]):
    """An LRU cache of look-ups above the tables; evicting one gives it back to the tree (forget).

    Then *directories* are forgotten too: one of them may lead through it.
    """

    def __init__(self, size: int, tree: Tree, directories: LRUCache[Names, _Place]) -> None:
        super().__init__(size)
        self._tree = tree
        self._directories = directories

    def popitem(self) -> tuple[tuple[int, bytes], FoundEntry]:
        """Remove and return the least recently used one."""
        key, found = super().popitem()
        self._tree.forget(found.node, 1)
        self._directories.clear()
        return key, found

    def drop_all(self) -> None:
        """Evict all."""
        self._directories.clear()
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
