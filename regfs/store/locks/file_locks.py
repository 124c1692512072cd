"""Locks between the processes that share a cache, all of them gone with their owner, however that ends.

    a file being written   a shared flock(2) on the temporary file (lock_new); one that is not locked may be removed
    what is being changed  an exclusive one on the cache's root directory (changing): a file gets its name or is removed
                           in one step with the files that belong to it

in_use.py knows which files are in use.

Used by the other modules of the store. Thread rule: any thread; each lock has a descriptor of its own, so that two
threads of one process keep each other out like two processes.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regfs.store.files.failures import failures_of

log = logging.getLogger(__name__)

_YOUNG_S = 1.0
_LOOK_S = 0.0005
_ATTEMPTS = 20


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Tell whether no process writes the file at *path*, a temporary one. False where it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def sweep_unlocked(directory: Path) -> None:
    """Remove the temporary files in *directory* whose writers have died. Raises OSError.

    One that was changed within a second may have a writer that has not locked it yet.
    """
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") and abs(time.time() - entry.stat(follow_symlinks=False).st_mtime) > _YOUNG_S:
                with claimed(Path(entry.path)) as is_ours:
                    if is_ours:
                        os.unlink(entry.path)


@contextmanager
def changing(root: Path) -> Iterator[None]:
    """Run the block while no other process or thread publishes or removes anything in the cache *root*.

    Waits for another such block, which is some renames or unlinks long. Raises CacheFailure.
    """
    with failures_of(root):
        root.mkdir(parents=True, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def new_locked_file(directory: Path, prefix: str) -> tuple[int, str]:
    """Return descriptor and path of a new temporary file in *directory*, locked as lock_new() locks it. Raises OSError.

    A sweep that finds the file before it is locked takes it for a leftover and removes it: then another one is made.
    """
    for _ in range(_ATTEMPTS):
        fd, name = tempfile.mkstemp(prefix=prefix, dir=directory)
        try:
            lock_new(fd)
            if os.fstat(fd).st_nlink:
                return fd, name
        except BlockingIOError:
            log.debug("%s was swept before it was locked", name)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fspath(directory))


def lock_new(fd: int) -> None:
    """Lock a file that this process is writing, so that no other takes it for a leftover: see claimed()."""
    _lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def touch(path: Path) -> None:
    """Note that the file was used now: what was used longest ago is evicted first.

    This sets its modification time: half a microsecond for each opening (not for each read). Nothing else needs that
    time, it survives every crash, and all processes see it. A wrong clock only leads to a bad choice.
    """
    try:
        os.utime(path)
    except OSError as error:
        log.debug("%s: its use cannot be noted: %s", path, error)


def lock_within(fd: int, operation: int, timeout_s: float) -> bool:
    """Lock *fd* by flock(2), which others hold briefly; return False where a holder does not go on. Raises OSError.

    Where the file system has no locks it returns True: there all processes go on without.
    """
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            _lock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                return False
            time.sleep(_LOOK_S)
        else:
            return True


def _lock(fd: int, operation: int) -> None:
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        raise
    except OSError as error:
        # A file system without locks. What is evicted too early there is fetched again.
        log.debug("the cache's file system has no locks: %s", error)
