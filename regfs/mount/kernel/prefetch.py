"""What a walk asks next, made ready before it is asked. Used by kernel/requests.py and kernel/session.py.

Who reads a tree asks for one thing at a time, and works on it before it asks for the next. So the daemon guesses:

    a part of a directory was read            the next part is made, while nothing is asked
    a directory was entered that was read     somebody walks: the first part of the next directory is made, in the order
    in the one before                         of a walk that goes down first, while nothing is asked
    two files of a layer were opened that     those behind them are read, sixteen at once; and while nothing is asked,
    come soon after each other in it          their bytes are put into the kernel's page cache

An archive has its entries in the order of somebody's walk: of 35,391 files of an image of three layers that tar(1)
opened, 95% were among the eight that come next. To read many at once takes a third of the time that it takes one by
one, so that this pays even where nothing is ever idle.

Thread rule: the thread that reads requests, and no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from regfs.errors import RegfsError
from regfs.model.node_id import LAYER_SHIFT
from regfs.mount.kernel.directory import OpenDirectory, Part

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem

log = logging.getLogger(__name__)

# Two files with at most so many entries between them are read in order.
_NEAR = 64
_AT_ONCE = 16
_SIZE_AT_ONCE = 128 * 1024
_MOST_READ = 64
_MOST_PARTS = 32
_MOST_TO_ENTER = 1 << 14
_MOST_REMEMBERED = 1024


class Prefetcher:
    """Guesses from what was asked.

    *make_ready* gives a file and all its bytes to the kernel before it is opened, and tells whether the kernel knows
    that file already.
    """

    def __init__(self, tree: FileSystem, make_ready: Callable[[int, bytes], bool]) -> None:
        self._tree = tree
        self._make_ready = make_ready
        self._directory: OpenDirectory | None = None
        # Directories that a walk comes to, the next one last; first parts that were made; and how long a part is, while
        # there is one to be made: one for each that is read.
        self._to_enter: dict[int, None] = {}
        self._parts: dict[int, Part] = {}
        self._size = 0
        self._is_walk = False
        # Files that were read, in the order of the guess; those of them that the kernel does not know yet; and those
        # that it has and nobody has opened since.
        self._read: dict[int, bytes] = {}
        self._early: dict[int, bytes] = {}
        self._ready: set[int] = set()
        # By archive: the file that was opened last, and the last one that was read.
        self._opened: dict[int, int] = {}
        self._guessed: dict[int, int] = {}
        # One for all reads: to get fresh memory from the kernel takes longer than to read what is put into it.
        self._buffer = bytearray(_SIZE_AT_ONCE)

    def entered(self, node: int) -> Part | None:
        """Note that the directory *node* of a table is opened; return its first part, where that was made."""
        self._is_walk = node in self._to_enter or node in self._parts
        self._size = 0
        self._to_enter.pop(node, None)
        if not self._is_walk:
            self._to_enter.clear()
            self._parts.clear()
        return self._parts.pop(node, None)

    def listed(self, directory: OpenDirectory, part: Part) -> None:
        """Note that *part* of *directory*, which never changes, was read."""
        self._directory = directory
        self._size = part.size
        if len(self._to_enter) > _MOST_TO_ENTER:
            self._to_enter.clear()
        for node in reversed(part.directories):
            self._to_enter[node] = None

    def closed(self, directory: OpenDirectory) -> None:
        """Note that nobody reads *directory* any more."""
        if self._directory is directory:
            self._directory = None

    def opened(self, node: int, *, is_known: bool) -> bytes | None:
        """Note that the file *node* of a table is opened, and whether the kernel has its bytes already.

        Return all its bytes where they were read, and the kernel has not got them yet.
        """
        if is_known and node not in self._ready:
            return None  # it is read for the second time, and so is what follows
        self._ready.discard(node)
        archive = node >> LAYER_SHIFT  # below is the row: the order of its files
        before = self._opened.get(archive, node)
        self._opened[archive] = node
        if not 0 < node - before <= _NEAR:
            self._guessed.pop(archive, None)
        elif self._guessed.get(archive, 0) <= node:
            self._guess(node)
        content = self._read.pop(node, None)
        return self._early.pop(node, None) if content is None else content

    def clear(self) -> None:
        """Drop all that was made: the kernel lets nodes go, and their numbers may come to mean something else."""
        for made in (self._to_enter, self._parts, self._read, self._early, self._ready, self._opened, self._guessed):
            made.clear()

    def step(self) -> bool:
        """Make one thing ready, in some ten microseconds; tell whether there was one. May raise any RegfsError."""
        if self._directory is not None:
            directory, self._directory = self._directory, None
            directory.make_ready()
        elif self._is_walk and self._size and self._to_enter:
            self._list_next()
        elif self._read:
            node = next(iter(self._read))
            content = self._read.pop(node)
            if self._make_ready(node, content):
                self._ready.add(node)
            else:
                self._early[node] = content
        else:
            return False
        return True

    def _list_next(self) -> None:
        node, _ = self._to_enter.popitem()
        size, self._size = self._size, 0
        if len(self._parts) >= _MOST_PARTS:
            self._parts.clear()
        self._parts[node] = OpenDirectory(self._tree, node, self._tree.listing(node)).part(0, size)

    def _guess(self, node: int) -> None:
        try:
            following = self._tree.read_following(node, _AT_ONCE, self._buffer)
        except RegfsError as error:
            log.debug("nothing is read behind node %#x: %s", node, error)  # who asks for it is told
            return
        if len(self._read) > _MOST_READ:  # where nothing is ever idle, wrong guesses would pile up
            self._read.clear()
        if following:
            self._guessed[node >> LAYER_SHIFT] = following[-1][0]
            self._read.update(following)
        if len(self._early) > _MOST_READ:
            self._early.clear()
        for remembered in (self._ready, self._opened, self._guessed):
            if len(remembered) > _MOST_REMEMBERED:
                remembered.clear()
