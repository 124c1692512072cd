"""Caches directories of one image as Python objects. Used by rootfs.py.

A query walks two B-trees, which takes SQLite 5 us if their pages are in the core's cache, and 12 if other programs ran
in between; a dict takes a tenth of that. A program that looks up an eighth of a directory's names will look up more, so
all of them are read then, at about 1 us each. The cache counts against the process's bound
(store/tables/open_tables.py), which empties it if it was not used lately. Thread rule: any thread; two may read the
same directory, and both get the same names.
"""

from __future__ import annotations

from typing import Protocol

from regfs.rootfs.directories import Child, Entry
from regfs.store.images.merged_table import UNSHARED, MergedDirectory
from regfs.store.tables.open_tables import OpenTables

_LEAST = 4
_SHARE = 8
_MOST_IN_ONE = 4096
_MOST_NAMES = 1 << 14
_MOST_COUNTED = 4096
_MOST_DIRECTORIES = 4096
# Estimated bytes of memory for each.
_NAME_SIZE = 300
_DIRECTORY_SIZE = 400
# The size is reported to the bound once for so many directories.
_STEP = 64


class DirectorySource(Protocol):
    """The queries that the cache makes; Directories has them."""

    def directory(self, node: int) -> MergedDirectory | None: ...

    def is_shared(self, node: int) -> bool: ...

    def children(self, node: int, start: int, limit: int, directory: MergedDirectory) -> list[Child]: ...


class DirectoryCache:
    """Caches directories and names of *source*; *tables* bounds the memory. Methods raise what the source's do."""

    __slots__ = ("__weakref__", "_asked", "_count", "_directories", "_known", "_shared", "_source", "_tables", "recent")

    def __init__(self, source: DirectorySource, tables: OpenTables) -> None:
        self.recent = False
        self._source = source
        self._tables = tables
        self._directories: dict[int, MergedDirectory | None] = {}
        self._shared: dict[int, bool] = {}
        self._asked: dict[int, int] = {}
        self._known: dict[int, dict[bytes, Entry]] = {}
        self._count = 0

    def directory(self, node: int) -> MergedDirectory | None:
        """Return the directory *node*, None if *node* is not a directory."""
        try:
            return self._directories[node]
        except KeyError:
            return self._load(node)

    def is_shared(self, directory: int) -> bool:
        """Tell whether the merged table has the entries of *directory*: one query, where directory() takes two."""
        known = self._directories.get(directory)
        if known is not None:
            return known.first != UNSHARED
        try:
            return self._shared[directory]
        except KeyError:
            is_shared = self._source.is_shared(directory)
            self.note(directory, is_shared=is_shared)
            return is_shared

    def note(self, directory: int, *, is_shared: bool) -> None:
        """Remember what is_shared() returns for *directory*."""
        if len(self._shared) >= _MOST_DIRECTORIES:
            self._shared.clear()
        self._shared[directory] = is_shared

    def names(self, directory: int) -> dict[bytes, Entry] | None:
        """Count a look-up in *directory* and return its entries by name; None if the table should be asked instead."""
        self.recent = True
        known = self._known.get(directory)
        return self._note_question(directory) if known is None else known

    def close_if_idle(self) -> bool:
        """Empty the cache. A thread may still use what it has just got. Called by OpenTables."""
        for kept in (self._directories, self._shared, self._asked, self._known):
            kept.clear()
        self._count = 0
        return True

    def _load(self, node: int) -> MergedDirectory | None:
        found = self._source.directory(node)
        if len(self._directories) >= _MOST_DIRECTORIES:
            self._directories.clear()
        self._directories[node] = found
        if len(self._directories) % _STEP == 1:
            self._tell()
        return found

    def _note_question(self, directory: int) -> dict[bytes, Entry] | None:
        asked = self._asked[directory] = self._asked.get(directory, 0) + 1
        if asked < _LEAST:
            if len(self._asked) > _MOST_COUNTED:
                self._asked.clear()
            return None
        found = self.directory(directory)
        if found is None or found.size > min(asked * _SHARE, _MOST_IN_ONE):
            return None
        size = found.size
        if self._count + size > _MOST_NAMES:
            self._known.clear()
            self._count = 0
        children = self._source.children(directory, 0, size, found)
        known = {name: (node, attributes) for name, node, attributes in children}
        self._known[directory] = known
        self._count += size
        self._tell()
        return known

    def _tell(self) -> None:
        directories = min(len(self._directories) + _STEP, _MOST_DIRECTORIES)
        self._tables.add(self, size=self._count * _NAME_SIZE + directories * _DIRECTORY_SIZE)
