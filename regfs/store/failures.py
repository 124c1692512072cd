"""What the disk refuses, in words that name the path and the remedy. Used by the other modules of the store."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regfs.errors import CacheFailure, CacheFull

_MAKE_ROOM = "; make room there, or let --cache-dir name another disk"
_REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EROFS: "; --cache-dir names another directory",
    errno.EACCES: "; --cache-dir names another directory",
    errno.EPERM: "; --cache-dir names another directory",
}


@contextmanager
def failures_of(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a CacheFailure that names *path*."""
    try:
        yield
    except OSError as error:
        raise cache_failure(path, error) from error


def cache_failure(path: Path, error: OSError) -> CacheFailure:
    """Return the CacheFailure that says what *error* means for the cache."""
    kind = CacheFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else CacheFailure
    return kind(f"{path}: {error.strerror}{_REMEDIES.get(error.errno or 0, '')}")


def table_failure(path: Path, error: sqlite3.Error) -> CacheFailure:
    """Return the same for an error of a table that is being written."""
    is_full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return CacheFull(f"{path}: {error}{_MAKE_ROOM}") if is_full else CacheFailure(f"{path}: {error}")
