"""What each process uses of the cache, in one locked file a process, so that others evict nothing that is in use.

    uses/<token>     locked (flock) by its process for as long as that lives, however it ends. Lines:
    +<number> layers/<diff id>.index
    +<number> images/<chain id>.merged
    -<number>                                that use has ended

What is named there stays, with all that belongs to it (the data file of a layer). A file whose lock is not held was
left by a dead process and is removed. What the kernel has mounted by itself stays too (kernel_mounts.py), and what the
user has pinned (pins.py).

A process writes its line first and then looks whether the file is still there; one that evicts reads the lines and
removes the file. So that neither acts between the other's two steps, the first takes the lock of the directory `uses`
shared and the second takes it exclusively: for microseconds, and for one file at a time.
Used by layer_store.py and table.py (Uses), by eviction.py and images/holdings.py (LivingUses). Thread rule: any thread;
the garbage collector may end a Use at any instant, so that ending one takes no lock.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regfs.errors import NotFound
from regfs.store.eviction.kernel_mounts import used_by_kernel_mounts
from regfs.store.eviction.pins import DIRECTORY as PINS
from regfs.store.eviction.pins import pinned_parts
from regfs.store.files.cached_files import take_away
from regfs.store.files.failures import cache_failure
from regfs.store.locks.file_locks import lock_within

log = logging.getLogger(__name__)

DIRECTORY = "uses"
# The file is written again without ended uses once it is longer than this, in bytes, and most lines are of ended ones.
_LONG = 64 << 10
_LINE = 100
_LOCKED_S = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Use:
    """Keeps a file from eviction while this object lives. Made by Uses.announce() and hold()."""

    __slots__ = ("_number", "_uses")

    def __init__(self, uses: Uses, number: int) -> None:
        self._uses = uses
        self._number = number

    def release(self) -> None:
        """Let the file be evicted; doing it twice does no harm."""
        self._uses.end(self._number)

    def __del__(self) -> None:
        self._uses.end(self._number)


class Uses:
    """What this process uses of the cache at *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / DIRECTORY / secrets.token_hex(8)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._living: dict[int, str] = {}
        self._fd = -1

    def __del__(self) -> None:
        self.close()

    def announce(self, path: Path) -> Use:
        """Return a Use of the file at *path*, 10 us. Raises NotFound where there is none; CacheFailure."""
        use = self.hold(path)
        # Its line is there: an evictor that looks from now on leaves the file, one that looked before has removed it.
        if not path.exists():
            use.release()
            raise NotFound(f"{path}: it is not in the cache")
        return use

    def hold(self, path: Path) -> Use:
        """Return a Use of the file at *path*, which may still have to be made. Raises CacheFailure."""
        name = path.relative_to(self._root).as_posix()
        with self._lock:
            use = Use(self, next(self._numbers))
            try:
                with _locked(self._root, fcntl.LOCK_SH):
                    self._write(use._number, name)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    raise cache_failure(self._path, error) from error
                # What is evicted too early then is fetched again.
                log.debug("%s: what is used cannot be announced: %s", self._path, error)
        return use

    def end(self, number: int) -> None:
        """Note that a use has ended; doing it twice does no harm."""
        if self._living.pop(number, None) is not None and self._fd >= 0:
            with suppress(OSError):  # then the file names more than is in use, until it is written again
                os.write(self._fd, b"-%d\n" % number)

    def close(self) -> None:
        """End all uses and remove the file; later uses are not announced."""
        fd, self._fd = self._fd, -1
        self._living.clear()
        if fd >= 0:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(fd)

    def _write(self, number: int, name: str) -> None:
        """Append a line to the file, which is made if it does not exist (any more)."""
        self._living[number] = name
        if self._fd < 0 or os.fstat(self._fd).st_nlink == 0:
            self._begin()
        elif os.fstat(self._fd).st_size > max(_LONG, 2 * _LINE * len(self._living)):
            os.ftruncate(self._fd, 0)
            self._write_living()
        else:
            os.write(self._fd, f"+{number} {name}\n".encode())

    def _begin(self) -> None:
        take_away(self._path)  # a link there would lead the lines into another file
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if self._fd < 0:
                self._fd, fd = fd, -1
            else:
                # The cache was deleted. The descriptor keeps its number, since a Use may be ending meanwhile.
                os.dup2(fd, self._fd, inheritable=False)
        finally:
            if fd >= 0:
                os.close(fd)
        self._write_living()

    def _write_living(self) -> None:
        living = list(self._living.items())
        os.write(self._fd, "".join(f"+{number} {name}\n" for number, name in living).encode())
        # A use that ended meanwhile may have written its end before its beginning.
        ended = [number for number, _ in living if number not in self._living]
        os.write(self._fd, b"".join(b"-%d\n" % number for number in ended))


class LivingUses:
    """What the living processes use of the cache at *root*, read again whenever that has changed. One thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._mounted: frozenset[str] | None = None
        self._pins_seen: tuple[int, int] | None = None
        self._pinned: frozenset[str] = frozenset()

    @contextmanager
    def claimed(self, path: Path) -> Iterator[bool]:
        """Yield whether no process uses the file at *path*. If so, none can begin to while the block runs."""
        with _locked(self._root, fcntl.LOCK_EX):
            self._look()
            name = path.relative_to(self._root).as_posix()
            yield not any(name in names for names in (self._pinned, self._mounted or (), *self._names.values()))

    def needs_whole(self, index: Path, chunks: Path) -> bool:
        """Whether the lazy layer of *index* needs all of its bytes: it is pinned or mounted, or its map is in use."""
        with _locked(self._root, fcntl.LOCK_EX):
            self._look()
            layer, map_of_it = (path.relative_to(self._root).as_posix() for path in (index, chunks))
            is_held = layer in self._pinned or layer in (self._mounted or ())
            return is_held or any(map_of_it in names for names in self._names.values())

    def look(self) -> None:
        """Read what is used now, for holders_of(). Raises OSError."""
        with _locked(self._root, fcntl.LOCK_SH):
            self._look()

    def holders_of(self, path: Path) -> list[str]:
        """Return what kept the file at *path* from eviction at the last look: "open", "mounted", "pinned"."""
        name = path.relative_to(self._root).as_posix()
        words = {
            "open": any(name in names for names in self._names.values()),
            "mounted": name in (self._mounted or ()),
            "pinned": name in self._pinned,
        }
        return [word for word, holds in words.items() if holds]

    def _look(self) -> None:
        self._look_at_pins()
        found: dict[str, tuple[int, int, int]] = {}
        with os.scandir(self._root / DIRECTORY) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # its process has just ended
                    continue
                found[entry.name] = status.st_ino, status.st_size, status.st_mtime_ns
        if found != self._seen or self._mounted is None:
            # A process that mounts an image has it in use until it ends: one that has ended may have left a mount.
            self._mounted = used_by_kernel_mounts(self._root)
        for name in self._names.keys() - found.keys():
            del self._names[name]
        for name in found:
            if found[name] != self._seen.get(name) or name not in self._names:
                self._names[name] = _names_in(self._root / DIRECTORY / name)
        self._seen = found

    def _look_at_pins(self) -> None:
        """Read the pins again if one was added or removed, which changes the time of their directory."""
        try:
            status = os.stat(self._root / PINS)
        except FileNotFoundError:
            self._pins_seen, self._pinned = None, frozenset()
            return
        seen = status.st_mtime_ns, status.st_ino
        if seen != self._pins_seen:
            self._pins_seen, self._pinned = seen, pinned_parts(self._root)


def sweep_uses(root: Path) -> None:
    """Remove what dead processes left. Raises OSError."""
    if (root / DIRECTORY).is_dir():
        with _locked(root, fcntl.LOCK_EX):
            LivingUses(root)._look()


def _names_in(path: Path) -> frozenset[str]:
    """Return what the process of the file at *path* uses; if it is dead, remove the file and return nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return frozenset()
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _living_in(os.pread(fd, os.fstat(fd).st_size, 0))
        except OSError as error:  # a file system without locks does not tell whether its process lives
            log.debug("%s: %s", path, error)
            return frozenset()
        path.unlink(missing_ok=True)
        return frozenset()
    finally:
        os.close(fd)


def _living_in(content: bytes) -> frozenset[str]:
    names: dict[bytes, str] = {}
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        number, _, name = line[1:].partition(b" ")
        if line[:1] == b"+":
            names[number] = os.fsdecode(name)
        else:
            names.pop(number, None)
    return frozenset(names.values())


@contextmanager
def _locked(root: Path, operation: int) -> Iterator[None]:
    """Hold the lock of the directory `uses` while the block runs. Raises OSError."""
    directory = root / DIRECTORY
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock_soon(fd, operation)
        yield
    finally:
        os.close(fd)


def _lock_soon(fd: int, operation: int) -> None:
    """Take a lock that others hold for microseconds. Go on without it if a holder is stopped or the disk has no locks.

    What is evicted by mistake then is fetched again.
    """
    if not lock_within(fd, operation, _LOCKED_S):
        log.warning("a process holds the lock of the cache's uses and does not go on")
