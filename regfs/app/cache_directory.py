"""Finds the directory that is the cache: the one that the user wants or, where it cannot be used, a temporary one.

    $TMPDIR/regfs-cache-<uid>-…/          locked (flock) by its process for as long as that lives, however it ends
                                cache/    the cache

A process that is killed leaves its temporary cache. The next process of the same user that needs one goes on with it,
so that a crash costs neither what was fetched nor room on the disk. Used by composition.py. Thread rule: functions;
several processes may call them at once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

from regfs.errors import InvalidOption

CACHE_PATH_MAX = 400
"""The most bytes of the cache directory's path. SQLite's limit is 512 with its suffixes; names in the cache take 78."""


class TemporaryCache:
    """A cache, the directory *path*, until `close` or the end of the process, which remove it."""

    def __init__(self, directory: Path, lock: int) -> None:
        """*lock* is the descriptor of *directory*, locked. *path* is below it: a cache locks its own directory."""
        self.path = directory / "cache"
        self._remove = weakref.finalize(self, _remove, directory, lock)

    def close(self) -> None:
        """Remove it, and those of processes that were killed. Blocks on the disk."""
        self._remove()
        for left in _left_behind():
            left._remove()


def usable_cache(wanted: Path, *, offline: bool, references: str) -> tuple[Path, TemporaryCache | None, str | None]:
    """Return the path of the cache, the temporary cache that it is or None, and a note for the user or None.

    Offline, a cache that has the file *references* is used even if it cannot be written. Raises InvalidOption where
    the path is too long for SQLite, OSError where no temporary directory can be made either.
    """
    length = max(len(os.fsencode(os.path.abspath(wanted))), len(os.fsencode(os.path.realpath(wanted))))
    if length > CACHE_PATH_MAX:
        raise InvalidOption(
            f"the path of the cache directory has {length} bytes, and SQLite opens nothing below one of more than "
            f"{CACHE_PATH_MAX}: {wanted}; name a shorter one with --cache-dir"
        )
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            pass
    except OSError as error:
        if offline and os.access(wanted / references, os.R_OK):
            return wanted, None, f"the cache directory {wanted} cannot be written ({error.strerror}): it is only read"
        temporary = temporary_cache()
        temporary.path.mkdir(mode=0o700, exist_ok=True)
        remedy = f"using {temporary.path}, which is deleted at the end; choose another with --cache-dir"
        return temporary.path, temporary, f"the cache directory {wanted} cannot be used ({error.strerror}): {remedy}"
    return wanted, None, None


def temporary_cache() -> TemporaryCache:
    """Return a temporary cache that a killed process has left, or a new one. Raises OSError."""
    with closing(_left_behind()) as found:
        for left in found:
            return left
    while True:
        path = Path(tempfile.mkdtemp(prefix=_prefix()))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # 0: another process has taken it between the two for one left behind
            return TemporaryCache(path, lock)
        os.close(lock)


def _left_behind() -> Generator[TemporaryCache, None, None]:
    """Yield the temporary caches of this user whose processes have ended, each locked now."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            about = os.fstat(lock)
            is_own = about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) == 0o700 and about.st_nlink > 0
        except OSError:
            is_own = False
        if is_own:
            yield TemporaryCache(directory, lock)
        else:
            os.close(lock)


def _prefix() -> str:
    return f"regfs-cache-{os.geteuid()}-"


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
