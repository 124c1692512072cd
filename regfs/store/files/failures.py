"""Turns errors of the disk and of SQLite into errors of the cache that name the path and the remedy.

Used by the other modules of the store. Pure.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regfs.errors import CacheDamaged, CacheFailure, CacheFull

_MAKE_ROOM = "; make room there, or let --cache-dir name another disk"
_MORE_FILES = "; ulimit -n (LimitNOFILE= of a systemd unit) allows more open files"
_REMEDIES = {
    errno.ENOENT: "; was the cache deleted meanwhile? Try again",
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: "; fs.file-max allows more open files on this machine",
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EROFS: "; remount it, or name another with --cache-dir; a mount uses a temporary one after regfs restart",
    errno.EACCES: "; --cache-dir names another directory",
    errno.EPERM: "; --cache-dir names another directory",
}


# The lowest byte of an SQLite result says what went wrong, the others where. Source: sqlite.org/rescode.html. An
# SQLITE_ERROR of a constant statement means that the table it names is not there.
_PRIMARY_CODE = 0xFF
_WRONG_CONTENT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


@contextmanager
def failures_of(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a CacheFailure that names *path*."""
    try:
        yield
    except OSError as error:
        raise cache_failure(path, error) from error


def cache_failure(path: Path, error: OSError) -> CacheFailure:
    """Return *error* as a CacheFailure that names *path* and the remedy."""
    kind = CacheFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else CacheFailure
    return kind(f"{path}: {error.strerror}{_REMEDIES.get(error.errno or 0, '')}")


def without_frames(failure: CacheFailure) -> CacheFailure:
    """Return a copy of *failure*, to be kept or raised again: without tracebacks, whose frames hold what was read.

    An exception that is raised again and again gets longer by some frames each time.
    """
    copy = type(failure)(str(failure))
    if isinstance(failure.__cause__, Exception):
        copy.__cause__ = failure.__cause__.with_traceback(None)
    return copy


def read_failure(path: Path, error: sqlite3.Error | MemoryError) -> CacheFailure:
    """Return the error of reading a table as a CacheFailure: CacheDamaged only where its content is wrong.

    Missing memory, missing descriptors or an I/O error say nothing about the file, which must stay.
    """
    if isinstance(error, MemoryError):
        return CacheFailure(f"{path}: out of memory")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & _PRIMARY_CODE
    kind = CacheDamaged if code in _WRONG_CONTENT else CacheFailure
    return kind(f"{path}: {error}")


def is_exhausted(failure: CacheFailure) -> bool:
    """Tell whether the process was out of descriptors or memory, so that closing something may help."""
    cause = failure.__cause__
    if isinstance(cause, OSError):
        return cause.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    # SQLite says only that it cannot open a file. The caller has checked that the file exists.
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & _PRIMARY_CODE
    return isinstance(cause, MemoryError) or (isinstance(cause, sqlite3.Error) and code == sqlite3.SQLITE_CANTOPEN)


def table_failure(path: Path, error: sqlite3.Error) -> CacheFailure:
    """Return the error of writing a table as a CacheFailure."""
    is_full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return CacheFull(f"{path}: {error}{_MAKE_ROOM}") if is_full else CacheFailure(f"{path}: {error}")
