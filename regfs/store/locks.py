"""Who uses what in the cache: locks between processes, all of them gone with their owner, however that ends.

    a table in use       a shared flock(2) on the table's own file, by whoever has it open (Hold)
    a table to be evicted an exclusive one, which fails while anybody has it open (claimed)
    what is being changed an exclusive one on the cache's root directory (changing): objects are shared by layers, so
                         that a layer may not become visible while another one's objects are looked through and removed

Used by the other modules of the store. Thread rule: any thread; each lock has a descriptor of its own, so that two
threads of one process keep each other out like two processes.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regfs.errors import NotFound
from regfs.store.failures import cache_failure, failures_of

log = logging.getLogger(__name__)


class Hold:
    """Keeps the table at *path*, and the files that belong to it, from eviction for as long as this object lives."""

    __slots__ = ("_fd",)

    def __init__(self, path: Path) -> None:
        """Raises NotFound where there is no such file, or where it is just being removed; CacheFailure. Never waits."""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            _lock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            self.release()
            raise NotFound(f"{path}: it is not in the cache") from None
        except OSError as error:
            raise cache_failure(path, error) from error
        # Whoever evicts locks first and unlinks then: with our lock on a file that has a name, it keeps the name.
        if os.fstat(self._fd).st_nlink == 0:
            self.release()
            raise NotFound(f"{path}: it is not in the cache any more")

    def release(self) -> None:
        """Let the table go; doing it twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.release()


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Tell whether nobody uses the file at *path*; then nobody will while the block runs. False where it is gone."""
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


@contextmanager
def changing(root: Path) -> Iterator[None]:
    """Run the block while no other process or thread publishes or removes anything in the cache *root*.

    Waits for the other's block, which is some renames or unlinks long. Raises CacheFailure.
    """
    with failures_of(root):
        root.mkdir(parents=True, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def lock_new(fd: int) -> None:
    """Mark the file that this process is writing as not left behind: see claimed().

    Shared, like a Hold: as soon as the file has its name, others may open it, though its writer has not let go yet.
    """
    _lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def touch(path: Path) -> None:
    """Note that the file was used now: what was used longest ago is evicted first.

    Its modification time says so, half a microsecond for each opening (not for each read): nothing else needs that
    time, it survives every crash, and all processes see it. A clock that was set wrong costs a bad choice, no more.
    """
    try:
        os.utime(path)
    except OSError as error:
        log.debug("%s: its use cannot be noted: %s", path, error)


def _lock(fd: int, operation: int) -> None:
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        raise
    except OSError as error:
        # A file system without locks. What is evicted too early there is fetched again when it is missed.
        log.debug("the cache's file system has no locks: %s", error)
