"""Reads rpm's current database, rpmdb.sqlite: the header of each package is a blob in the table Packages.

The file is untrusted. It is opened in memory, for one query of one table: none of its views, functions and triggers
runs, and a progress handler ends a query that takes too many steps. Older databases (Packages of Berkeley DB,
Packages.db) are not read. Sources: rpm, lib/backend/sqlite.c; SQLite, "Defense Against The Dark Arts". Used by
packages.py. Thread rule: a function.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from regfs.errors import BadContent
from regfs.model.packages import Package, rpm_package

_MAGIC = b"SQLite format 3\0"
# Bytes 18 and 19 are 2 for a database with a write-ahead log beside it, which a database in memory cannot have.
_JOURNAL = slice(18, 20)
_MOST_PACKAGES = 100_000
_MOST_HEADER = 16 << 20
_STEPS, _MOST_CALLS = 10_000, 5_000
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)


def rpm_packages(content: bytes) -> Iterator[Package]:
    """Yield the packages in the database *content*. Raises BadContent if it is not a database of rpm."""
    if len(content) < 100 or not content.startswith(_MAGIC):
        raise BadContent("it is not a database of SQLite")
    database = bytearray(content)
    database[_JOURNAL] = b"\1\1"
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(database)
            _restrict(connection)
            _check_schema(connection)
            for (header,) in connection.execute("SELECT blob FROM main.Packages LIMIT ?", (_MOST_PACKAGES,)):
                package = rpm_package(header) if isinstance(header, bytes) else None
                if package is not None:
                    yield package
        except (sqlite3.Error, ValueError, MemoryError, OverflowError) as error:
            raise BadContent(f"it cannot be read: {error}") from None


def _restrict(connection: sqlite3.Connection) -> None:
    calls = iter(range(_MOST_CALLS))
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_HEADER)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1 << 16)
    connection.set_progress_handler(lambda: next(calls, None) is None, _STEPS)
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)


def _check_schema(connection: sqlite3.Connection) -> None:
    """Raise BadContent unless Packages is a plain table with a column of blobs."""
    query = "SELECT type, sql FROM main.sqlite_master WHERE name = 'Packages' LIMIT 2"
    found = connection.execute(query).fetchall()
    text = " ".join(str(found[0][1]).split()).upper() if len(found) == 1 else ""
    if not text.startswith("CREATE TABLE ") or found[0][0] != "table" or " AS " in text or " VIRTUAL " in text:
        raise BadContent("it has no table Packages as rpm makes it")
