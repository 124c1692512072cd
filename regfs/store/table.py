"""Opening an SQLite table of the cache: an immutable file, opened for reading. Used by both kinds of tables.

What goes wrong is one of three things, and callers must tell them apart: the file is not there (NotFound), its content
is not what it should be (CacheDamaged: remove it and make it again), or the system cannot open or read it at this
moment (any other CacheFailure: no descriptors, no memory, an I/O error): that says nothing about the file.
Thread rule: any thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from regfs.errors import CacheDamaged, NotFound
from regfs.store.failures import cache_failure, read_failure

T = TypeVar("T")


def open_table(path: Path, check: Callable[[sqlite3.Connection, int], T]) -> tuple[sqlite3.Connection, T]:
    """Return a connection to the table at *path*, and what *check* returned for it and the file's size in bytes.

    *check* raises ValueError where the table is none of ours. Raises NotFound, CacheDamaged, CacheFailure.
    """
    # SQLite tells no errno. Opened first by hand, a file that is missing and a process without descriptors differ.
    try:
        probe = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path}: it is not in the cache") from None
    except OSError as error:
        raise cache_failure(path, error) from error
    try:
        size = os.fstat(probe).st_size
        uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
    except OSError as error:
        raise cache_failure(path, error) from error
    except (sqlite3.Error, MemoryError) as error:
        raise read_failure(path, error) from error
    finally:
        os.close(probe)
    try:
        return connection, check(connection, size)
    except ValueError as error:
        connection.close()
        raise CacheDamaged(f"{path} is not a table of this version: {error}") from error
    except (sqlite3.Error, MemoryError) as error:
        connection.close()
        raise read_failure(path, error) from error


def check_header(connection: sqlite3.Connection, size: int, *, application_id: int, version: int) -> None:
    """Raise ValueError unless the table is one of *application_id* and *version*, and as long as it says.

    A file that a crash left empty is a valid database without tables, and a short one is noticed only where it is read.
    """
    found = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "page_count", "page_size")
    }
    if found["application_id"] != application_id or found["user_version"] != version:
        raise ValueError(f"application {found['application_id']:#x}, version {found['user_version']}")
    if size != found["page_count"] * found["page_size"]:
        raise ValueError(f"{size} bytes, not {found['page_count']} pages of {found['page_size']}")
