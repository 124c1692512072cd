"""Decides which files come along with a small file because of the directory that it is in.

A program that starts reads most of some directories: of the 30 that `import numpy` reads small files of, it reads nine
in ten bytes of all but the largest. And it reads equal ones: numpy/core/__pycache__, numpy/lib/__pycache__, …

    the first small read of a layer        brings nothing: one read tells nothing
    the next one in a directory            brings the small files of it, if they are MAX_WHOLE bytes at most together
    one in a second directory of that      begins to bring those of all such directories, each up to MAX_WHOLE, if they
    name, below the same grandparent       are MAX_ALIKE bytes at most together

Used by chunk_fetching.py. Thread rule: any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cachetools import LRUCache

MAX_WHOLE = 1 << 20
MAX_ALIKE = 8 << 20
_MOST_DIRECTORIES = 4096
_MOST_FILES = 2048

Ranges = Sequence[tuple[int, int]]
"""Of the data file, each `[start, stop)`."""


class FileNames(Protocol):
    """The names of one layer; its index has them."""

    def directory_of(self, content: int) -> int | None:
        """Return the directory of the file at that offset of the data file."""

    def above(self, row: int) -> tuple[int, bytes]:
        """Return the directory that *row* is in, and its name there."""

    def files_in(self, directory: int, limit: int) -> list[tuple[int, int]]:
        """Return (offset in the data file, size) of at most *limit* files in *directory*."""

    def alike(self, above: int, name: bytes, limit: int) -> list[int]:
        """Return what is called *name* in the directories in *above*."""


class Along(NamedTuple):
    """What comes with a file: *here*, from its own directory, and *alike*, from others, which need not come at once."""

    here: Ranges = ()
    alike: Ranges = ()


NOTHING = Along()


class DirectoryReads:
    """The directories of one layer from which small files were read."""

    def __init__(self, names: FileNames, *, largest: int) -> None:
        """*largest*: files above this size are not small."""
        self._names = names
        self._largest = largest
        self._lock = threading.Lock()
        self._is_first = True
        self._seen: LRUCache[int, bool] = LRUCache(_MOST_DIRECTORIES)
        # By the directory above the one above, and the name: a directory of that name.
        self._read: LRUCache[tuple[int, bytes], int] = LRUCache(_MOST_DIRECTORIES)

    def note(self, content: int) -> Along:
        """Note that the small file at that offset was read and had to be fetched; return what to fetch with it."""
        directory = self._names.directory_of(content)
        if directory is None:
            return NOTHING
        with self._lock:
            is_first, self._is_first = self._is_first, False
            if is_first or directory in self._seen:
                return NOTHING
            return Along(self._small_files(directory), self._alike(directory))

    def _small_files(self, directory: int) -> Ranges:
        """Return the small files of *directory*, and note that they come; none if they are too much."""
        self._seen[directory] = True
        files = self._names.files_in(directory, _MOST_FILES)
        small = [(start, start + size) for start, size in files if 0 < size <= self._largest]
        return small if sum(stop - start for start, stop in small) <= MAX_WHOLE else ()

    def _alike(self, directory: int) -> Ranges:
        parent, name = self._names.above(directory)
        above, _ = self._names.above(parent)
        other = self._read.setdefault((above, name), directory)
        if other in (directory, -1) or parent == above:
            return ()
        self._read[above, name] = -1  # once
        ranges = [
            each
            for found in self._names.alike(above, name, _MOST_DIRECTORIES)
            if found not in self._seen
            for each in self._small_files(found)
        ]
        return ranges if sum(stop - start for start, stop in ranges) <= MAX_ALIKE else ()
