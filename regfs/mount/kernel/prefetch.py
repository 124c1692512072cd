"""Prefetches what a walk will ask for next: parts of directories, and the bytes of small files.

A program that reads a tree asks for one thing, works on it, and asks for the next. The daemon uses the time in between:

    a part of a directory was read            the next part of it is made while no request is there
    a directory was entered whose parent was  the program walks: the first part of the directory that comes next, in
    read                                      depth-first order, is made while no request is there
    two files of a layer were opened that     the small files that follow them are read, 16 with one read(2); their
    lie close together in it                  bytes go into the kernel's page cache while no request is there

A layer's entries are in the order in which some program once walked them: of 35,391 files that tar(1) opened in an
image of three layers, 95% were among the eight entries after the one before. Reading 16 files at once takes a third of
the time of 16 reads, so this pays even if requests never pause.

Used by requests.py, which calls the prefetchers at each request, and by session.py, which calls `step` between two
requests. A thread of the pool, which answers what takes time, has NoPrefetch instead. Thread rule: the thread
that reads requests, and no other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from regfs.errors import RegfsError
from regfs.model.node_id import LAYER_SHIFT, is_entry
from regfs.mount.kernel.directory import OpenDirectory, Part
from regfs.mount.kernel.page_cache import PageCache

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.node import OpenFile

log = logging.getLogger(__name__)

_MOST_PARTS = 32
_MOST_TO_ENTER = 1 << 14
# Two files with at most this many entries between them are read in order.
_NEAR = 64
_FILES_AT_ONCE = 16
_BYTES_AT_ONCE = 128 * 1024
_MOST_READ = 64
_MOST_REMEMBERED = 1024


class NoPrefetch:
    """Prefetches nothing: for threads whose requests wait for the network anyway."""

    def entered(self, node: int) -> None:
        """See DirectoryPrefetch, as for the next three."""

    def take(self, _node: int, _offset: int, _size: int) -> Part | None:
        return None

    def listed(self, directory: OpenDirectory, part: Part) -> None: ...

    def left(self, node: int) -> None: ...

    def opening(self, node: int) -> None:
        """See FilePrefetch, as for the next one."""

    def opened(self, node: int, file: OpenFile) -> None: ...

    def clear(self) -> None: ...


NO_PREFETCH = NoPrefetch()


class DirectoryPrefetch:
    """Makes answers to READDIRPLUS before they are asked for. Only for directories of tables, which never change."""

    def __init__(self, tree: FileSystem) -> None:
        self._tree = tree
        # The part that was read last, if the next one is not made yet.
        self._last: tuple[OpenDirectory, Part] | None = None
        # By directory: the next part of one that is open, and the first part of one that is not open yet.
        self._next: dict[int, Part] = {}
        self._first: dict[int, Part] = {}
        # The directories that a walk will enter, the next one last; the size of a part, once for each part that is
        # read, so that a walk is never more than one directory behind.
        self._to_enter: dict[int, None] = {}
        self._size = 0
        self._is_walk = False

    def entered(self, node: int) -> None:
        """Note that the directory *node* is opened."""
        first = self._first.pop(node, None)
        self._is_walk = first is not None or node in self._to_enter
        self._size = 0
        if first is not None:
            self._keep(self._next, node, first)
        if self._is_walk:
            self._to_enter.pop(node, None)
        else:
            self._to_enter.clear()
            self._first.clear()

    def take(self, node: int, offset: int, size: int) -> Part | None:
        """Return the part of *node* from *offset* on of *size* bytes, if it was made."""
        part = self._next.pop(node, None)
        return part if part is not None and part[:2] == (offset, size) else None

    def listed(self, directory: OpenDirectory, part: Part) -> None:
        """Note that *part* of *directory* was read."""
        self._last = directory, part
        self._size = part.size
        if len(self._to_enter) > _MOST_TO_ENTER:
            self._to_enter.clear()
        for node in reversed(part.directories):
            self._to_enter[node] = None

    def left(self, node: int) -> None:
        """Note that the directory *node* is closed."""
        if self._last is not None and self._last[0].node == node:
            self._last = None
        self._next.pop(node, None)

    def clear(self) -> None:
        """Drop all that was made: the kernel forgets nodes, and their numbers may be given to others."""
        self._next.clear()
        self._first.clear()
        self._to_enter.clear()

    def step(self) -> bool:
        """Make one part, in some ten microseconds; return whether there was one to make. May raise any RegfsError."""
        if self._last is not None:
            (directory, part), self._last = self._last, None
            if part.answer:
                self._keep(self._next, directory.node, directory.read_plus(part.behind, part.size))
        elif self._is_walk and self._size and self._to_enter:
            node, _ = self._to_enter.popitem()
            size, self._size = self._size, 0
            directory = OpenDirectory(self._tree, node, self._tree.listing(node))
            self._keep(self._first, node, directory.read_plus(0, size))
        else:
            return False
        return True

    @staticmethod
    def _keep(parts: dict[int, Part], node: int, part: Part) -> None:
        if len(parts) >= _MOST_PARTS:
            parts.clear()
        parts[node] = part


class FilePrefetch:
    """Reads the small files that follow those that are opened, and puts their bytes into *page_cache*."""

    def __init__(self, tree: FileSystem, page_cache: PageCache) -> None:
        self._tree = tree
        self._page_cache = page_cache
        # Bytes of files that were read, in the order of the layer; of those that the kernel did not take, because it
        # has not looked the file up yet; and the files that it took and that were not opened since.
        self._read: dict[int, bytes] = {}
        self._not_taken: dict[int, bytes] = {}
        self._taken: set[int] = set()
        # By layer: the file that was opened last, and the last one that was read.
        self._last_opened: dict[int, int] = {}
        self._last_read: dict[int, int] = {}
        # One buffer for all reads: getting fresh memory from the kernel takes longer than reading into it.
        self._buffer = bytearray(_BYTES_AT_ONCE)

    def opening(self, node: int) -> None:
        """Note that *node* will be opened: read the files that follow it, and store its own bytes if they were read."""
        if not is_entry(node):
            return
        if node in self._page_cache and node not in self._taken:
            return  # stored when it was opened before: so were the files that follow it
        self._taken.discard(node)
        layer = node >> LAYER_SHIFT  # the bits below are the row: the order of its files
        before = self._last_opened.get(layer, node)
        self._last_opened[layer] = node
        if not 0 < node - before <= _NEAR:
            self._last_read.pop(layer, None)
        elif self._last_read.get(layer, 0) <= node:
            self._read_following(node)
        content = self._read.pop(node, None)
        if content is None:
            content = self._not_taken.pop(node, None)
        if content is not None:
            self._page_cache.store_before_open(node, content)

    def opened(self, node: int, file: OpenFile) -> None:
        """Store the first bytes of *file*, the only open one of *node*, before its OPEN is answered."""
        self._page_cache.store_at_open(node, file)

    def clear(self) -> None:
        """Drop all that was read, for the reason of DirectoryPrefetch.clear."""
        for made in (self._read, self._not_taken, self._taken, self._last_opened, self._last_read):
            made.clear()

    def step(self) -> bool:
        """Store one file that was read; return whether there was one."""
        if not self._read:
            return False
        node = next(iter(self._read))
        content = self._read.pop(node)
        if self._page_cache.store_before_open(node, content):
            self._taken.add(node)
        else:
            self._not_taken[node] = content
        return True

    def _read_following(self, node: int) -> None:
        try:
            following = self._tree.read_following(node, _FILES_AT_ONCE, self._buffer)
        except RegfsError as error:
            log.debug("nothing is read after node %#x: %s", node, error)  # a READ of it meets and reports the failure
            return
        if len(self._read) > _MOST_READ:  # if requests never pause, wrong guesses would pile up
            self._read.clear()
        if following:
            self._last_read[node >> LAYER_SHIFT] = following[-1][0]
            self._read.update(following)
        if len(self._not_taken) > _MOST_READ:
            self._not_taken.clear()
        for remembered in (self._taken, self._last_opened, self._last_read):
            if len(remembered) > _MOST_REMEMBERED:
                remembered.clear()
