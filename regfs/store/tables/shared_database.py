"""Opening SQLite files: the small databases that the mounts of one cache share, and files that are only read.

A small database that is damaged is made again; one that cannot be opened is replaced by one in memory. Its content can
be asked for or handed out again, so no look-up needs to wait for the disk. Used by reference_database.py,
image_numbers.py and table.py. Thread rule: any thread may use a returned connection, one at a time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from regfs.store.files.cached_files import open_file

log = logging.getLogger(__name__)

# Seconds to wait for a write of another daemon: a look-up must not wait longer for what is only remembered.
_LOCKED_S = 0.5


def read_only_uri(path: Path, *, immutable: bool = False) -> str:
    """Return the URI by which SQLite opens the file at *path* to read; *immutable*: no process writes it any more."""
    return f"file:{quote(os.fsencode(path))}?mode=ro" + ("&immutable=1" if immutable else "")


def open_database(path: Path, schema: str, *, loss: str) -> sqlite3.Connection:
    """Return the database at *path*, in autocommit mode; where it cannot be opened, an empty one in memory.

    *schema* creates the tables that do not exist yet. *loss* is logged where the database is in memory alone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.close(open_file(path))  # SQLite would wait without end for the first byte of a FIFO
        try:
            return _connect(path, schema)
        except sqlite3.OperationalError:  # locked, no room, no permission: the file itself may be right
            raise
        except sqlite3.DatabaseError as error:
            log.warning("%s is damaged and is made again: %s", path, error)
            path.unlink()
            return _connect(path, schema)
    except (OSError, sqlite3.Error) as error:
        log.warning("%s: %s; %s", path, error, loss)
        return _prepare(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), schema)


def _connect(path: Path, schema: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_LOCKED_S)
    try:
        return _prepare(database, schema)
    except sqlite3.Error:
        database.close()
        raise


def _prepare(database: sqlite3.Connection, schema: str) -> sqlite3.Connection:
    # A lost last write only costs another request; a wait for the disk would cost each look-up.
    database.execute("PRAGMA synchronous=OFF")
    database.execute("PRAGMA cache_size=-256")
    database.executescript(schema)
    return database
