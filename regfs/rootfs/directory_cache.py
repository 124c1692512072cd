"""Directories of one merged table, as Python objects: those that were asked for. Used by rootfs.py.

A question to SQLite walks two trees of pages, which takes 5 us where they are in the core's cache, and 12 where other
programs run in between; a dict takes a tenth of that. A program that asks for an eighth of a directory's names will ask
for more, so then all of them are read, at about 1 us each. What is kept counts against the process's bound
(store/tables/open_tables.py) and goes when it was not used lately.
Thread rule: any thread; two may read the same directory, and both get the same names.
"""

from __future__ import annotations

from typing import Protocol

from regfs.store.images.merged_table import MergedDirectory
from regfs.store.tables.open_tables import OpenTables

Entry = tuple[int, bytes]
"""Node and attributes."""

_LEAST = 4
_SHARE = 8
_MOST_IN_ONE = 4096
_MOST_NAMES = 1 << 14
_MOST_COUNTED = 4096
_MOST_DIRECTORIES = 4096
# Bytes of memory, about.
_NAME_SIZE = 300
_DIRECTORY_SIZE = 400
# The bound hears of directories in such steps.
_STEP = 64


class DirectoryTable(Protocol):
    """What is asked of a MergedTable."""

    def directory(self, node: int) -> MergedDirectory | None: ...

    def children(self, first: int, stop: int) -> list[tuple[bytes, int, bytes]]: ...


class DirectoryCache:
    """What was asked of *table*; *tables* is the bound. Methods raise what the table's do."""

    __slots__ = ("__weakref__", "_asked", "_count", "_directories", "_known", "_table", "_tables", "recent")

    def __init__(self, table: DirectoryTable, tables: OpenTables) -> None:
        self.recent = False
        self._table = table
        self._tables = tables
        self._directories: dict[int, MergedDirectory | None] = {}
        self._asked: dict[int, int] = {}
        self._known: dict[int, dict[bytes, Entry]] = {}
        self._count = 0

    def directory(self, node: int) -> MergedDirectory | None:
        """Return the directory *node*, or None where *node* is no directory."""
        try:
            return self._directories[node]
        except KeyError:
            return self._load(node)

    def names(self, directory: int) -> dict[bytes, Entry] | None:
        """Return all entries of *directory*, about which a question has come; None: better ask for one alone."""
        self.recent = True
        known = self._known.get(directory)
        return self._note_question(directory) if known is None else known

    def close_if_idle(self) -> bool:
        """Forget all. A thread that has just been given something goes on with it."""
        for kept in (self._directories, self._asked, self._known):
            kept.clear()
        self._count = 0
        return True

    def _load(self, node: int) -> MergedDirectory | None:
        found = self._table.directory(node)
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
        first, size = found.first, found.size
        if self._count + size > _MOST_NAMES:
            self._known.clear()
            self._count = 0
        known = {name: (node, attributes) for name, node, attributes in self._table.children(first, first + size)}
        self._known[directory] = known
        self._count += size
        self._tell()
        return known

    def _tell(self) -> None:
        directories = min(len(self._directories) + _STEP, _MOST_DIRECTORIES)
        self._tables.add(self, size=self._count * _NAME_SIZE + directories * _DIRECTORY_SIZE)
