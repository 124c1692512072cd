"""The database of references: one connection to a small SQLite file, shared by all mounts of one cache.

    tags(registry, path, tag → digest, media_type, size, checked)     one row a tag that was resolved
    lists(registry, path → names, checked)                            tags/list of a repository, its names as JSON
    catalog(registry, path → listing)                                 _catalog: a repository a row, and the number of
                                                                      the listing that it was last in
    catalogs(registry → listing, checked)                             the number of the last complete listing
    manifests(registry, path, digest → media_type)                    that this repository has shown this manifest
    referrers(registry, path, digest → list, checked)                 what refers to a manifest: an index document
    starts(digest → record)                                           of a manifest: the blob that records its start
    created(digest → ns)                                              when the image was made, by its config
    caches(registry → is_cache, checked)                              whether it is a pull-through cache
    moves(id, registry, path, tag → digest, seen, was, was_seen)      what tags pointed to (tag_history.py)

`checked` is seconds since 1970. Losing the file loses nothing but answers that can be asked for again; where it cannot
be opened it lives in memory. Used by references.py and known_repositories.py. Thread rule: any thread; one connection
under one lock, and statements are short. Nothing here raises: a failure is logged, and reads find nothing.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regfs.store.tables.shared_database import open_database

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tags (
    registry TEXT, path TEXT, tag TEXT, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    checked REAL NOT NULL, PRIMARY KEY (registry, path, tag)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lists (
    registry TEXT, path TEXT, names TEXT NOT NULL, checked REAL NOT NULL, PRIMARY KEY (registry, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalog (
    registry TEXT, path TEXT, listing INTEGER NOT NULL, PRIMARY KEY (registry, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalogs (
    registry TEXT PRIMARY KEY, listing INTEGER NOT NULL, checked REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (
    registry TEXT, path TEXT, digest TEXT, media_type TEXT NOT NULL,
    PRIMARY KEY (registry, path, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS referrers (
    registry TEXT, path TEXT, digest TEXT, list BLOB NOT NULL, checked REAL NOT NULL,
    PRIMARY KEY (registry, path, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS starts (digest TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS created (digest TEXT PRIMARY KEY, ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS caches (
    registry TEXT PRIMARY KEY, is_cache INTEGER NOT NULL, checked REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moves (
    id INTEGER PRIMARY KEY, registry TEXT NOT NULL, path TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
    seen REAL NOT NULL, was TEXT NOT NULL, was_seen REAL NOT NULL);
CREATE INDEX IF NOT EXISTS moves_by_tag ON moves (registry, path, tag);
"""

Value = str | int | float | bytes
Values = tuple[Value, ...] | Mapping[str, Value]


class ReferenceDatabase:
    """The references database at *path*."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self.connection = open_database(path, _SCHEMA, loss="references are remembered for this mount only")

    def query(self, statement: str, arguments: Values) -> list[tuple[Any, ...]]:
        """Return the rows that *statement* selects; none where the file cannot be read."""
        with self._lock:
            try:
                return self.connection.execute(statement, arguments).fetchall()
            except sqlite3.DatabaseError as error:
                self._tell("the memory of references cannot be read", error)
                return []

    def change(self, statement: str, arguments: Values) -> None:
        """Run a *statement* that writes."""
        with self._lock:
            try:
                self.connection.execute(statement, arguments)
            except sqlite3.DatabaseError as error:
                self._tell("the memory of references cannot be written", error)

    def change_at_once(self, *statements: tuple[str, list[tuple[Value, ...]]]) -> bool:
        """Run *statements*, each once for every row of its values, in one transaction; tell whether that worked."""
        with self._lock:
            try:
                with self._transaction():
                    for statement, rows in statements:
                        self.connection.executemany(statement, rows)
            except sqlite3.DatabaseError as error:
                self._tell("the memory of references cannot be written", error)
                return False
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # any: an open transaction would lock the file for all other processes
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def _tell(self, what: str, error: sqlite3.Error) -> None:
        """Log the failure, as a warning only once: on a full or read-only disk each look-up would log it."""
        log.log(logging.DEBUG if what in self._told else logging.WARNING, "%s: %s", what, error)
        self._told.add(what)
