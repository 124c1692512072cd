"""An SQLite table of the cache: an immutable file, opened at its first query and closed when others need its place.

A failure is one of three, and callers must tell them apart: the file is missing (NotFound), its content is wrong
(CacheDamaged: remove it and make it again), or the system cannot open or read it now (any other CacheFailure: no
descriptors, no memory, an I/O error), which says nothing about the file.
Used by layer_index.py and merged_table.py, whose readers are Tables. Thread rule: any thread, one connection behind a
lock (3 us a query, most of it SQLite's: a connection for each thread would cost more memory than it saves time).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from weakref import finalize

from regfs.errors import CacheDamaged, CacheFailure, NotFound
from regfs.store.eviction.in_use import Use
from regfs.store.files.cached_files import open_file
from regfs.store.files.failures import cache_failure, is_exhausted, read_failure
from regfs.store.tables.open_tables import OpenTables
from regfs.store.tables.shared_database import read_only_uri

T = TypeVar("T")

Check = Callable[[sqlite3.Connection, int], None]
MakeAgain = Callable[[CacheFailure], None]
# Bytes that SQLite and the interpreter take for a connection beside its pages.
_CONNECTION_SIZE = 64 << 10
# Attempts: a table that a thread has just opened is closed again only where threads use more tables than may be open.
_ATTEMPTS = 100
_BATCH = 1000


class _NotOpenError(Exception):
    """The table is closed."""


FAILURES = (_NotOpenError, sqlite3.Error, MemoryError)
"""The exceptions of a query, which _ask_again() handles."""


class _ClosedCursor:
    """Takes the place of the cursor while the table is closed, so that a query need not check whether it is open."""

    def execute(self, _sql: str, _values: object = ()) -> sqlite3.Cursor:
        raise _NotOpenError


_CLOSED = _ClosedCursor()


class Table(ABC):
    """Reads the table at *path*. Methods of its subclasses may raise CacheFailure."""

    CACHE_SIZE: ClassVar[int]
    """How many bytes of the table's pages are kept in memory while it is open."""

    def __init__(
        self,
        path: Path,
        *,
        tables: OpenTables | None = None,
        use: Use | None = None,
        make_again: MakeAgain | None = None,
    ) -> None:
        """Read the table at *path*, which is opened at the first query.

        *tables* bounds what is open; without it the table stays open. *use* keeps the file from eviction while this
        object lives. *make_again* makes a file again that is gone or damaged; it may block and raise. Without it that
        is a CacheFailure.
        """
        self.path = path
        self.recent = True
        self._tables = tables
        self._use = use
        self._make_again = make_again
        self._lock = threading.Lock()
        # One cursor for all queries: making one takes a fifth of the time of a query.
        self._cursor: sqlite3.Cursor | _ClosedCursor = _CLOSED
        self._connection: sqlite3.Connection | None = None
        self._readers = 0
        self._closing: finalize[[], Table] | None = None

    @staticmethod
    @abstractmethod
    def check(connection: sqlite3.Connection, size: int) -> None:
        """Raise ValueError or sqlite3.Error unless the table, of *size* bytes, is whole and of this class."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the table at *path*, open; it may be evicted while it is used.

        Raises NotFound where there is no such file, CacheDamaged where it is not a whole table of this version (torn
        by a crash, or another release's), CacheFailure where it cannot be opened now.
        """
        table = cls(path)
        table.open_now()
        return table

    def open_now(self) -> None:
        """Open the file if it is not open. Raises NotFound, CacheDamaged, CacheFailure; never calls *make_again*."""
        if self._cursor is _CLOSED:
            self._keep(*self._connect())

    def close_if_idle(self) -> bool:
        """Close the file until the next query, unless a thread is using it now; return whether it is closed."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._readers:
                return False
            self._close()
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file and let it be evicted; a later query opens it again if it still exists."""
        with self._lock:
            self._close()
        if self._use is not None:
            self._use.release()

    # SQLite returns untyped rows: each caller names the types that its statement selects.
    def _query(self, sql: str, values: tuple[int | bytes | str, ...] = ()) -> list[Any]:
        try:
            with self._lock:
                self.recent = True
                return self._cursor.execute(sql, values).fetchall()
        except FAILURES as error:
            return self._ask_again(lambda cursor: cursor.execute(sql, values).fetchall(), error)

    def _first(self, sql: str, values: tuple[int | bytes | str, ...]) -> Any:
        """Return the first row that *sql* selects, or None: half a microsecond less than _query()."""
        try:
            with self._lock:
                self.recent = True
                return self._cursor.execute(sql, values).fetchone()
        except FAILURES as error:
            return self._ask_again(lambda cursor: cursor.execute(sql, values).fetchone(), error)

    def _batches(self, sql: str) -> Iterator[Any]:
        """Yield the rows that *sql* selects; the table stays open meanwhile."""
        with self._lock:
            self._readers += 1
        try:
            self._reopen()
            assert self._connection is not None
            try:
                with self._lock:
                    cursor = self._connection.execute(sql)
                    batch = cursor.fetchmany(_BATCH)
                while batch:
                    yield from batch
                    with self._lock:
                        batch = cursor.fetchmany(_BATCH)
            except (sqlite3.Error, MemoryError) as error:
                raise self._failure(error) from error
        finally:
            with self._lock:
                self._readers -= 1

    def _ask_again(self, ask: Callable[[sqlite3.Cursor | _ClosedCursor], T], error: BaseException) -> T:
        """Open the table and repeat the query; repeat it once more if the table was damaged and made again."""
        for _ in range(_ATTEMPTS):
            if not isinstance(error, _NotOpenError):
                self._recover(error)
            self._reopen()
            try:
                with self._lock:
                    self.recent = True
                    return ask(self._cursor)
            except FAILURES as again:
                if not isinstance(error, _NotOpenError) and not isinstance(again, _NotOpenError):
                    raise self._failure(again) from again
                error = again
        raise CacheFailure(f"{self.path}: more tables are in use at once than may be open; ulimit -n allows more")

    def _recover(self, error: BaseException) -> None:
        """Make the table again if *error* says that its content is wrong; otherwise raise the failure."""
        failure = self._failure(error)
        if not isinstance(failure, CacheDamaged) or self._make_again is None:
            raise failure from error
        with self._lock:
            self._close()
        self._make_again(failure)

    def _reopen(self) -> None:
        try:
            self.open_now()
        except (NotFound, CacheDamaged) as failure:
            # The caller shows a tree from this table: a missing file must never become "no such name".
            lost = failure if isinstance(failure, CacheDamaged) else CacheFailure(str(failure))
            if self._make_again is None:
                raise lost from failure
            self._make_again(lost)
            self._open_made()

    def _open_made(self) -> None:
        try:
            self.open_now()
        except NotFound as failure:
            raise CacheFailure(f"{failure}, though it was made a moment ago") from failure

    def _connect(self) -> tuple[sqlite3.Connection, int]:
        try:
            return _connected(self.path, self.check)
        except CacheFailure as failure:
            if self._tables is None or not is_exhausted(failure):
                raise
        self._tables.close_idle()
        return _connected(self.path, self.check)

    def _keep(self, connection: sqlite3.Connection, size: int) -> None:
        connection.execute(f"PRAGMA cache_size = {-(self.CACHE_SIZE >> 10)}")
        with self._lock:
            if self._cursor is not _CLOSED:  # another thread was faster
                connection.close()
                return
            self._connection, self._cursor = connection, connection.cursor()
            # A connection of Python's sqlite3 is part of a circle (its cache of statements): left to the garbage
            # collector, a table that is not used any more would stay open for hours. Not by __del__: while that runs, a
            # weak reference still gives the object out, and a connection that is used while it is closed is a crash.
            self._closing = finalize(self, connection.close)
            self._closing.atexit = False
        if self._tables is not None:
            self._tables.add(self, descriptors=1, size=_CONNECTION_SIZE + min(size, self.CACHE_SIZE))

    def _close(self) -> None:
        """Close the connection. The caller holds the lock."""
        self._connection, self._cursor = None, _CLOSED
        closing, self._closing = self._closing, None
        if closing is not None:
            closing()

    def _failure(self, error: BaseException) -> CacheFailure:
        assert isinstance(error, sqlite3.Error | MemoryError)
        return read_failure(self.path, error)


def _connected(path: Path, check: Check) -> tuple[sqlite3.Connection, int]:
    """Return a connection to the table at *path* and the file's size. Raises NotFound, CacheDamaged, CacheFailure."""
    # SQLite gives no errno: opening the file first tells a missing file from a process without descriptors.
    try:
        probe = open_file(path)
    except FileNotFoundError:
        raise NotFound(f"{path}: it is not in the cache") from None
    except OSError as error:
        raise cache_failure(path, error) from error
    size = os.fstat(probe).st_size
    os.close(probe)  # first: the last descriptor of the process may be needed below
    uri = read_only_uri(path, immutable=True)
    try:
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
    except (sqlite3.Error, MemoryError) as error:
        raise read_failure(path, error) from error
    try:
        check(connection, size)
    except ValueError as error:
        connection.close()
        raise CacheDamaged(f"{path} is not a table of this version: {error}") from error
    except (sqlite3.Error, MemoryError) as error:
        connection.close()
        raise read_failure(path, error) from error
    return connection, size


def check_header(connection: sqlite3.Connection, size: int, *, application_id: int, version: int) -> None:
    """Raise ValueError unless the table is one of *application_id* and *version*, and as long as it says.

    SQLite takes an empty file for a database without tables, and notices a cut one only where it reads.
    """
    found = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "page_count", "page_size")
    }
    if found["application_id"] != application_id or found["user_version"] != version:
        raise ValueError(f"application {found['application_id']:#x}, version {found['user_version']}")
    if size != found["page_count"] * found["page_size"]:
        raise ValueError(f"{size} bytes, not {found['page_count']} pages of {found['page_size']}")
