"""Work that one thread of all processes does at a time: locks by name, and how far their holders are.

    locks/<name>     locked with flock(2) by the thread that does the work; its content is a Standing

The kernel releases a lock when its process ends, however that ends: another process then takes the work over. A holder
that makes no progress (a stopped process, a disk that hangs) loses its lock file, and others begin without it: what
both make is the same, and takes its place by a rename. Files are removed by their holders, and after a kill by sweep().

Used by images/workers/shared_work.py. Thread rule: any thread; two threads of one process are like two processes.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from regfs.store.files.failures import failures_of

log = logging.getLogger(__name__)

LOCKS = "locks"
"""Their directory in the cache."""
_TELL_EVERY_S = 0.2
_TELL_EVERY = 1 << 18
_FIRST_LOOK_S, _LOOK_S = 0.005, 0.1
_STANDING = struct.Struct("<QQQQ")


class Standing(NamedTuple):
    """The progress of some work: bytes received and inflated, entries, and *effort*, any number that only grows."""

    received: int = 0
    inflated: int = 0
    entries: int = 0
    effort: int = 0


class Claim:
    """The right to do some work, until the block of WorkLocks.claim() ends."""

    def __init__(self, fd: int) -> None:
        """*fd* is -1 where the file system has no such file: then other processes do not see the progress."""
        self._fd = fd
        self._next_s = 0.0
        self._told = 0

    def tell(self, standing: Standing) -> None:
        """Write the progress for the threads that wait; cheap, a write each fifth of a second or 256 KiB.

        The bytes count too: a transfer that stops after a fast beginning must not look as if nothing had come.
        """
        now_s = time.monotonic()
        if self._fd >= 0 and (now_s >= self._next_s or standing.received - self._told >= _TELL_EVERY):
            self._next_s, self._told = now_s + _TELL_EVERY_S, standing.received
            with suppress(OSError):  # a full disk; the others only see no progress
                os.pwrite(self._fd, _STANDING.pack(*standing), 0)


class WorkLocks:
    """The locks in *directory*. No method waits for the disk longer than reading a small file takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[int, tuple[Path, int]] = {}  # by descriptor: where it was opened, its inode

    def abandon(self) -> None:
        """Remove the files of all work that is under way here: this process is about to end."""
        for path, inode in tuple(self._held.values()):
            _remove(path, inode)

    @contextmanager
    def claim(self, name: str) -> Iterator[Claim | None]:
        """Yield the right to do the work *name*, or None while another thread or process has it.

        Without locks (a file system that has none, a full disk) every caller gets it, and work may be done twice.
        """
        path = self._directory / name
        try:
            fd = self._lock(path)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            log.debug("%s: no lock: %s", path, error)
            fd = -1
        if fd >= 0:
            self._held[fd] = path, os.fstat(fd).st_ino
        try:
            yield Claim(fd)
        finally:
            if fd >= 0:
                _remove(*self._held.pop(fd))
                os.close(fd)

    def standings(self, name: str, *, stalled_after_s: float) -> Iterator[Standing]:
        """Yield the progress of the holder of *name*, ten times a second, until it has released the lock.

        A holder without progress for *stalled_after_s* loses its lock.
        """
        path = self._directory / name
        last: tuple[int, Standing] | None = None
        since_s, pause_s = time.monotonic(), _FIRST_LOOK_S
        while (seen := _look(path)) is not None:
            now_s = time.monotonic()
            if seen != last:
                last, since_s = seen, now_s
            elif now_s - since_s > stalled_after_s:
                log.warning("another process makes no progress with %s; it is done here", name)
                _remove(path, seen[0])
                return
            yield seen[1]
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_S)

    def sweep(self) -> None:
        """Remove the files that killed processes left. Raises CacheFailure."""
        with failures_of(self._directory):
            for path in self._directory.iterdir() if self._directory.is_dir() else ():
                with self.claim(path.name):
                    pass  # whose claim ends removes the file

    def _lock(self, path: Path) -> int:
        """Return the descriptor of the file, made and locked. Raises BlockingIOError, OSError."""
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                self._directory.mkdir(parents=True, exist_ok=True)
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                path.unlink(missing_ok=True)  # a link, which would lead what is written into another file
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder may have removed the file between open and flock: try again.
                if _inode(path) == os.fstat(fd).st_ino:
                    return fd
            except OSError:
                os.close(fd)
                raise
            os.close(fd)


def _look(path: Path) -> tuple[int, Standing] | None:
    """Return the file's inode and the progress that its holder has written; None where nothing holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(fd, _STANDING.size, 0)
        standing = Standing(*_STANDING.unpack(said)) if len(said) == _STANDING.size else Standing()
        return os.fstat(fd).st_ino, standing
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _remove(path: Path, inode: int) -> None:
    """Remove the file if it is still the one with that number."""
    with suppress(OSError):
        if _inode(path) == inode:
            path.unlink(missing_ok=True)
