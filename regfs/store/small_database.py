"""Small SQLite databases that the mounts of one cache share: opened, made again where damaged, else kept in memory.

What is in them can be asked or handed out again, so nothing waits for the disk. Used by references.py and
image_numbers.py. Thread rule: a connection that is returned may be used by any thread, one at a time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from regfs.store.cached_files import open_file

log = logging.getLogger(__name__)

# How long a write of another daemon is waited for; a look-up must not wait longer for what is only remembered.
_LOCKED_S = 0.5


def open_database(path: Path, schema: str, *, loss: str) -> sqlite3.Connection:
    """Return the database at *path*, in autocommit mode; where it cannot be opened, an empty one in memory.

    *schema* is what creates the tables that are not there yet. *loss* says in the log what memory alone costs.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.close(open_file(path))  # SQLite would wait for ever for the first byte of a FIFO
        try:
            return _connect(path, schema)
        except sqlite3.OperationalError:  # locked, no room, no permission: the file itself is right
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
    # A lost last write is only a question to be asked again; what must not happen is a wait for the disk at a look-up.
    database.execute("PRAGMA synchronous=OFF")
    database.execute("PRAGMA cache_size=-256")
    database.executescript(schema)
    return database
