"""The merged table of an image: what its layers, one above the other, look like as one tree.

    entries(id INTEGER PRIMARY KEY, parent, name BLOB, node, attributes BLOB(80))     index (parent, name)
    directories(node INTEGER PRIMARY KEY, parent, first, count, attributes BLOB(80))
    unshared(node INTEGER PRIMARY KEY, parent)
    links(node INTEGER PRIMARY KEY, attributes BLOB(80))
    meta(key TEXT PRIMARY KEY, value INTEGER)                                          root
    layers(number INTEGER PRIMARY KEY, rows)                                           rows of each layer's index

The key of a node has the deciding layer and a row of its index in it (model/node_id.py). The table holds what the
layers share: a directory is *unshared* if one layer alone has it and all that is below it. Its entries are then in that
layer's index, as the entries of its row; *unshared* has the topmost such directories, and *directories* has none.
Nine of ten names of an image are in unshared directories. The entries of one directory of the table have ids
`[first, first + count)` in the order of their names, so that a position in a listing is an id. *links* holds the
attributes of inodes whose link count in the merged tree is not the one in their layer.

A file is written once under a temporary name, flushed, renamed, and immutable from then on. Written by
rootfs/merge.py, and of what differs between two images by images/comparing/trees.py, without unshared directories;
read by rootfs/directories.py.

Thread rule: a MergedTable may be used by any thread (table.py); a writer belongs to one thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from regfs.errors import CacheDamaged, NotFound
from regfs.store.files.cached_files import put, take_away
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import format_sums, is_as_written, sha256_of
from regfs.store.files.failures import cache_failure, table_failure
from regfs.store.files.replaced_files import successor_of
from regfs.store.locks.file_locks import changing, new_locked_file
from regfs.store.tables.table import Table, check_header

APPLICATION_ID = 0x7267666D  # "rgfm"
VERSION = 5

_SCHEMA = """
CREATE TABLE entries (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL,
    attributes BLOB NOT NULL);
CREATE TABLE directories (node INTEGER PRIMARY KEY, parent INTEGER NOT NULL, first INTEGER NOT NULL,
    count INTEGER NOT NULL, attributes BLOB NOT NULL);
CREATE TABLE unshared (node INTEGER PRIMARY KEY, parent INTEGER NOT NULL);
CREATE TABLE links (node INTEGER PRIMARY KEY, attributes BLOB NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE layers (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL);
"""
_LOOKUP = "SELECT node, attributes FROM entries WHERE parent = ? AND name = ?"
_CHILDREN = "SELECT name, node, attributes FROM entries WHERE id >= ? AND id < ? ORDER BY id"
_DIRECTORY = """
SELECT parent, first, count, attributes FROM directories WHERE node = ?1
UNION ALL SELECT parent, -1, 0, x'' FROM unshared WHERE node = ?1
"""
_IS_SHARED = "SELECT EXISTS (SELECT 1 FROM directories WHERE node = ?)"
_ALL_UNSHARED = "SELECT node FROM unshared ORDER BY node"
_SPANS = "SELECT node, first, count FROM directories"
_ROOT = "SELECT value FROM meta WHERE key = 'root'"
_LINK = "SELECT attributes FROM links WHERE node = ?"
_LINKS = "SELECT node, attributes FROM links"
_HAS_LINKS = "SELECT EXISTS (SELECT 1 FROM links)"
_ENTRIES = "SELECT parent, name, node, attributes FROM entries ORDER BY id"


UNSHARED = -1
MergedRow = tuple[int, bytes, int, bytes]
"""An entry: the directory's key, name, node, attributes."""


class MergedDirectory(NamedTuple):
    """A directory: its parent's key, the ids `[first, first + size)` of its entries, its attributes.

    *first* is UNSHARED where the entries are in the index of the layer.
    """

    parent: int
    first: int
    size: int
    attributes: bytes


class MergedTable(Table):
    """Reads a merged table. Every method answers from disk or memory, never waits, and may raise CacheFailure."""

    CACHE_SIZE = 4000 << 10

    @staticmethod
    def check(connection: sqlite3.Connection, size: int) -> None:
        """Raise ValueError or sqlite3.Error unless this is a merged table of *size* bytes with a root."""
        check_header(connection, size, application_id=APPLICATION_ID, version=VERSION)
        if connection.execute(_ROOT).fetchone() is None:
            raise ValueError("it has no root")

    @property
    def root(self) -> int:
        """The root's key."""
        return int(self._query(_ROOT)[0][0])

    def row_counts(self) -> list[int]:
        """Return how many rows the index of each layer has, base first; the layers themselves need not be open."""
        return [row[0] for row in self._query("SELECT rows FROM layers ORDER BY number")]

    def lookup(self, directory: int, name: bytes) -> tuple[int, bytes] | None:
        """Return node and attributes of the entry *name* of *directory*, or None."""
        found: tuple[int, bytes] | None = self._first(_LOOKUP, (directory, name))
        return found

    def directory(self, node: int) -> MergedDirectory | None:
        """Return the directory *node*, or None where the table has no such directory.

        Of a topmost unshared directory it has the parent alone.
        """
        found = self._query(_DIRECTORY, (node,))
        return MergedDirectory._make(found[0]) if found else None

    def is_shared(self, node: int) -> bool:
        """Tell whether the table has the entries of the directory *node*."""
        return bool(self._query(_IS_SHARED, (node,))[0][0])

    def unshared(self) -> Iterator[int]:
        """Yield the topmost unshared directories, in the order of their layers and rows."""
        return (row[0] for row in self._batches(_ALL_UNSHARED))

    def spans(self) -> dict[int, tuple[int, int]]:
        """Return, for each directory of the table, the id of its first entry and how many it has.

        One scan, and 150 bytes for each.
        """
        return {node: (first, count) for node, first, count in self._batches(_SPANS)}

    def children(self, first: int, stop: int) -> list[tuple[bytes, int, bytes]]:
        """Return (name, node, attributes) of the entries with ids `[first, stop)`."""
        found: list[tuple[bytes, int, bytes]] = self._query(_CHILDREN, (first, stop))
        return found

    def entries(self) -> Iterator[MergedRow]:
        """Yield (parent, name, node, attributes) of all entries, each directory's together and sorted by name."""
        return self._batches(_ENTRIES)

    def has_links(self) -> bool:
        """Tell whether an inode's link count is not the one in its layer."""
        return bool(self._query(_HAS_LINKS)[0][0])

    def link(self, node: int) -> bytes | None:
        """Return the attributes of an inode whose link count is not the one in its layer, or None."""
        found = self._query(_LINK, (node,))
        return found[0][0] if found else None

    def links(self) -> Iterator[tuple[int, bytes]]:
        """Yield node and attributes of all inodes whose link count is not the one in their layer."""
        return self._batches(_LINKS)


def is_sound(root: Path, path: Path) -> bool:
    """Whether *path*, below the cache's *root*, is a table of this version with its checksum. Raises CacheFailure."""
    try:
        MergedTable.open(path).close()
    except (NotFound, CacheDamaged):
        return False
    return is_as_written(root, path)


class MergedTableWriter:
    """Writes a merged table under a temporary name. Methods raise CacheFailure. One thread.

    fill() writes rows in any order. Or the caller opens *path*, fills entries (in the order of their ids: each
    directory's together, sorted by name), unshared and links, and closes it again before finish().
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            self._lock, name = new_locked_file(destination.parent, ".merged-")
        except OSError as error:
            raise cache_failure(destination, error) from error
        self.path = Path(name)
        try:
            with closing(self._open()) as connection:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self.abandon()
            raise table_failure(destination, error) from error

    def fill(self, rows: Iterable[MergedRow], links: Callable[[], Iterable[tuple[int, bytes]]]) -> None:
        """Write *rows*, and then those of *links* whose nodes are in *rows*."""
        try:
            with closing(self._open()) as connection:
                connection.execute("BEGIN")
                for statement in (_FOUND_TABLE, _LINKED_TABLE):
                    connection.execute(statement)
                connection.executemany("INSERT INTO found VALUES (?, ?, ?, ?)", rows)
                connection.execute(_FOUND_ENTRIES)
                connection.executemany("INSERT INTO linked VALUES (?, ?)", links())
                connection.execute(_FOUND_LINKS)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise table_failure(self._destination, error) from error

    def finish(self, root: int, attributes: bytes, *, row_counts: Sequence[int] = (), sums: Path | None = None) -> None:
        """Write the directories, flush the file and give it its name. *attributes* are the root directory's.

        *row_counts* are the numbers of rows that the layers' indexes have. The file of checksums, by default beside the
        table, gets its name before it: a table has always its checksums, and checksums alone count as leftovers.
        """
        sums = sums or self._destination.with_suffix(SUMS)
        try:
            with closing(self._open()) as connection:
                connection.execute("BEGIN")
                connection.execute("CREATE UNIQUE INDEX entries_by_name ON entries (parent, name)")
                connection.execute(_GROUP_TABLE)
                connection.execute(_GROUPS)
                connection.execute(_DIRECTORIES, (root, root, attributes))
                connection.execute("INSERT INTO meta VALUES ('root', ?)", (root,))
                connection.executemany("INSERT INTO layers VALUES (?, ?)", enumerate(row_counts))
                connection.execute("COMMIT")
            _flush(self.path)
            name = f"{self._destination.parent.name}/{self._destination.name}"
            content = format_sums({name: sha256_of(self.path)})
            # One step for other processes: otherwise `regfs cache verify` could drop a table with other checksums.
            # After a kill in the middle the table is missing, or its checksums are right.
            with (
                successor_of(sums, content, is_flushed=True) as written,
                changing(self._destination.parent.parent),
            ):
                take_away(self._destination)
                put(written, sums)
                put(self.path, self._destination)
            _flush(self._destination.parent)
        except sqlite3.Error as error:
            raise table_failure(self._destination, error) from error
        except OSError as error:
            raise cache_failure(self._destination, error) from error

    def abandon(self) -> None:
        """Remove what has been written; does nothing after finish()."""
        self.path.unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        # The file gets its name when it is whole, so it needs neither journal nor flushes.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -16000"):
            connection.execute(f"PRAGMA {pragma}")
        return connection


_FOUND_TABLE = "CREATE TEMP TABLE found (parent INTEGER, name BLOB, node INTEGER, attributes BLOB)"
_LINKED_TABLE = "CREATE TEMP TABLE linked (node INTEGER, attributes BLOB)"
_FOUND_ENTRIES = """
INSERT INTO entries (parent, name, node, attributes)
SELECT parent, name, node, attributes FROM found ORDER BY parent, name
"""
_FOUND_LINKS = "INSERT INTO links SELECT node, attributes FROM linked WHERE node IN (SELECT node FROM found)"
_GROUP_TABLE = "CREATE TEMP TABLE groups (node INTEGER PRIMARY KEY, first INTEGER, count INTEGER)"
_GROUPS = """
INSERT INTO groups SELECT parent, min(id), count(*) FROM entries GROUP BY parent ORDER BY parent
"""
# The type is in the top half of the mode's second byte: 4 for a directory.
_DIRECTORIES = """
INSERT INTO directories
SELECT d.node, d.parent, ifnull(g.first, 0), ifnull(g.count, 0), d.attributes
FROM (SELECT ? AS node, ? AS parent, ? AS attributes
      UNION ALL SELECT node, parent, attributes FROM entries WHERE substr(attributes, 54, 1) BETWEEN x'40' AND x'4f') d
LEFT JOIN groups g ON g.node = d.node
WHERE d.node NOT IN (SELECT node FROM unshared)
ORDER BY d.node
"""


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
