"""The map of a lazy layer's chunks: which of them the data file has, and how evictions and readers keep out of each
other's way.

    layers/<diff id>.chunks
        "rgfc", u32 version, u64 number of chunks, 36 bytes boot id, 12 bytes id of the table of chunks, or zeros,
        u64 number of evictions so far, u64 offset in the data file where the next one begins
        one byte a chunk: 0 absent; 1 here; 2 written before the last boot of the machine, to be verified before use;
                          3 here, and used since an eviction last looked at it

    layers/<diff id>.parts     the same at the end of the parts of a plain layer (chunks.py). It is of the chunks in one
                               index; another ingest may write another index: hence the id

A crash of the machine can leave a mark without the bytes: each chunk of a map from another boot is hashed again at its
first use (a second for each gigabyte). The time of the file is that of the layer's last use, to a minute.

An eviction (chunk_eviction.py) removes chunks while others read: it marks them absent, counts itself, and only then
frees their bytes. A reader reads the count before it looks at the map and again when it has the bytes: if both are
equal, no byte was freed meanwhile. Each mark as here is made with the lock of the map, which an eviction has alone.
Used by chunks.py and chunk_eviction.py. Thread rule: any thread; a LockedMap belongs to one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

from regfs.errors import CacheDamaged, CacheFailure
from regfs.store.files.cached_files import open_file
from regfs.store.files.failures import failures_of
from regfs.store.locks.file_locks import lock_within

VERSION = 2
_MAGIC = b"rgfc"
_HEADER = struct.Struct("<4sIQ36s12s")
_COUNTERS = struct.Struct("<QQ")
_SIZE = 80
_BOOT_AT, _EVICTIONS_AT = 16, 64
_TABLE_ID = 12
_ABSENT, _HERE, _DOUBTED, _USED = 0, 1, 2, 3
_ARE_HERE = (_HERE, _USED)
_DOUBT = bytes.maketrans(bytes(_ARE_HERE), bytes([_DOUBTED, _DOUBTED]))
# Seconds. Others have the lock for milliseconds.
_LOCKED_S = 10.0
_EVICTED_WITHIN_S = 1.0
_USE_EVERY_S = 60.0
# Chunks are looked at together if there are at most so many bytes of the map for each of them: reading a thousand bytes
# costs no more than reading one does.
_LOOKED_AT_ONCE = 256
_FARTHEST = 64
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def empty_map(count: int, *, boot: str, table: bytes = b"") -> bytes:
    """Return the map of a layer of *count* chunks, none of which is here; *table* is the id of the table of chunks."""
    return _HEADER.pack(_MAGIC, VERSION, count, boot.encode(), table).ljust(_SIZE, b"\0") + bytes(count)


def write_map(path: Path, count: int, *, boot: str) -> None:
    """Write the map of a layer of *count* chunks, none of which is here. Raises CacheFailure."""
    with failures_of(path):
        path.write_bytes(empty_map(count, boot=boot))


class ChunkMap:
    """The map at *path*, cached in memory: a chunk that is here stays here until an eviction is counted."""

    def __init__(self, path: Path, *, boot: str, at: int = 0, table: bytes = b"") -> None:
        """The map begins *at* bytes into the file, and is of the table of chunks with that id.

        Raises OSError where it cannot be opened, CacheDamaged, CacheFailure.
        """
        self._fd = -1
        self._at = at
        self._table = table.ljust(_TABLE_ID, b"\0")
        self._lock = threading.Lock()  # of _seen, and of this descriptor's file lock
        self._evictions = 0
        self._next_use_s = 0.0
        self._fd, self.read_only = open_to_write(path)
        with failures_of(path), self._locked(fcntl.LOCK_EX):
            self._seen = self._read(path, boot)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _read(self, path: Path, boot: str) -> bytearray:
        """Return the bytes of the chunks, those in doubt that were written before this boot; the file is locked."""
        self._evictions = self.evictions()
        content = bytearray(os.pread(self._fd, max(0, os.fstat(self._fd).st_size - self._at), self._at))
        magic, version, count, _, table = _HEADER.unpack_from(content[:_SIZE].ljust(_SIZE, b"\0"))
        self.count: int = count
        if (magic, version, count, table) != (_MAGIC, VERSION, len(content) - _SIZE, self._table):
            raise CacheDamaged(f"{path}: it is not a map of chunks of this version")
        expected = boot.encode()[:36].ljust(36, b"\0")
        self._doubts = content[_BOOT_AT : _BOOT_AT + 36] != expected
        if not self._doubts:
            return content[_SIZE:]
        chunks = content[_SIZE:].translate(_DOUBT)
        if self.read_only is None:
            os.pwrite(self._fd, chunks, self._at + _SIZE)
            os.pwrite(self._fd, expected, self._at + _BOOT_AT)
            self._doubts = False
        return chunks

    def is_in(self, fd: int) -> bool:
        """Whether the map is in the file that is open as *fd*. Raises OSError."""
        return os.path.samestat(os.fstat(self._fd), os.fstat(fd))

    def is_here(self, number: int) -> bool:
        """Whether that chunk may be read without another check."""
        return not self.absent([number])

    def is_doubted(self, number: int) -> bool:
        """Whether that chunk was written before this boot and has to be verified first."""
        return bool(self.absent([number]).get(number))

    def absent(self, numbers: Iterable[int]) -> dict[int, bool]:
        """Return those of *numbers* that may not be read without another check, and whether they are in doubt.

        In doubt: written before this boot, to be verified first. Of many neighbours one look into the file tells.
        """
        unseen = [number for number in numbers if self._seen[number] not in _ARE_HERE]
        with self._lock:
            for first in range(0, len(unseen), _LOOKED_AT_ONCE):
                self._look(unseen[first : first + _LOOKED_AT_ONCE])
            return {number: state == _DOUBTED for number in unseen if (state := self._seen[number]) not in _ARE_HERE}

    def _look(self, numbers: Sequence[int]) -> None:
        """Note the states of those chunks in the file: another process may have fetched them meanwhile."""
        first, stop = min(numbers), max(numbers) + 1
        if stop - first > _FARTHEST * len(numbers):
            for number in numbers:
                self._look_at(number, number + 1, (number,))
        else:
            self._look_at(first, stop, numbers)

    def _look_at(self, first: int, stop: int, numbers: Iterable[int]) -> None:
        stored = os.pread(self._fd, stop - first, self._at + _SIZE + first).ljust(stop - first, b"\0")
        states = stored.translate(_DOUBT) if self._doubts else stored
        for number in numbers:
            self._seen[number] = states[number - first]

    def evictions(self) -> int:
        """Return how many evictions there were of chunks of this layer, by any process; a microsecond."""
        return int.from_bytes(os.pread(self._fd, 8, self._at + _EVICTIONS_AT), "little")

    def look_again(self) -> None:
        """Forget what was cached before the last eviction."""
        if self.evictions() != self._evictions:
            with self._lock:
                evictions = self.evictions()  # before the chunks: what is evicted after it is looked at again
                self._seen[:] = self._stored()
                self._evictions = evictions

    def _stored(self) -> bytes:
        stored = os.pread(self._fd, self.count, self._at + _SIZE).ljust(self.count, b"\0")
        return stored.translate(_DOUBT) if self._doubts else stored

    @contextmanager
    def without_evictions(self) -> Iterator[None]:
        """Let no eviction run while the block does, which is a write of one chunk long. Raises CacheFailure."""
        with (
            self._lock,
            self._locked(fcntl.LOCK_SH),
        ):  # the file's lock belongs to the descriptor, which all threads use
            yield

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        if not lock_within(self._fd, operation, _LOCKED_S):
            raise CacheFailure("another process has locked the map of a layer's chunks, and does not go on")
        try:
            yield
        finally:
            with suppress(OSError):  # the file system has no locks
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def note_use(self, numbers: Iterable[int]) -> None:
        """Let those chunks, which are read, be evicted later than others, and so the layer.

        Free until an eviction has looked at them, but for the time of the map, once a minute. Never waits.
        """
        if self.read_only is not None or self._doubts:
            return
        now_s = time.monotonic()
        if now_s >= self._next_use_s:
            self._next_use_s = now_s + _USE_EVERY_S
            with suppress(OSError):
                os.utime(self._fd)
        marked = [number for number in numbers if self._seen[number] == _HERE]
        if marked and self._lock.acquire(blocking=False):
            try:
                self._mark_used(marked)
            finally:
                self._lock.release()

    def _mark_used(self, numbers: Iterable[int]) -> None:
        with suppress(OSError):  # an eviction is under way, or the file system has no locks
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            try:
                for number in numbers:
                    if os.pread(self._fd, 1, self._at + _SIZE + number) == bytes([_HERE]):
                        self.mark(number)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def mark(self, number: int, *, here: bool = True) -> None:
        """Mark that chunk as here and used, within without_evictions(), or as absent. Raises OSError."""
        value = _USED if here else _ABSENT
        self._seen[number] = value
        # By pwrite, not through a mapping: a page that cannot be written would kill the process.
        os.pwrite(self._fd, bytes([value]), self._at + _SIZE + number)

    def mark_all(self, numbers: Collection[int]) -> None:
        """Mark those chunks as here and used, as mark() does: neighbours by one write. Raises OSError."""
        for _, run in groupby(enumerate(sorted(numbers)), key=lambda numbered: numbered[1] - numbered[0]):
            neighbours = [number for _, number in run]
            first, states = neighbours[0], bytes([_USED]) * len(neighbours)
            self._seen[first : first + len(states)] = states
            os.pwrite(self._fd, states, self._at + _SIZE + first)

    def is_complete(self) -> bool:
        """Whether every chunk is here; takes a microsecond for ten thousand of them."""
        self.look_again()
        if self._here() < self.count and not self._doubts:
            with self._lock:
                self._seen[:] = self._stored()
        return self._here() == self.count

    def has_any(self) -> bool:
        """Whether a chunk was here, or in doubt, when this process last looked."""
        return any(self._seen)

    def bytes_of_those_here(self, sizes: Iterable[tuple[int, int]]) -> int:
        """Return how many bytes the chunks have that are here, or in doubt; *sizes* has number and size of each."""
        with self._lock:
            states = self._stored()
        return sum(size for number, size in sizes if states[number])

    def _here(self) -> int:
        return sum(map(self._seen.count, _ARE_HERE))


class LockedMap:
    """The map *at* an offset of the file *fd*, for an eviction: as long as that is open, no chunk is marked as here.

    *hand* is the offset in the data file where the last eviction ended, and this one. Not *is_locked* where a process
    that marks a chunk does not go on, or the file system has no locks.
    """

    def __init__(self, fd: int, at: int, *, table: bytes = b"") -> None:
        """The map is of the table of chunks with that id. Raises OSError, CacheDamaged."""
        self._fd = fd
        self._at = at
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_locked = True
        except BlockingIOError:
            self.is_locked = lock_within(fd, fcntl.LOCK_EX, _EVICTED_WITHIN_S)
        except OSError:
            self.is_locked = False
        self._status = os.fstat(fd)
        content = bytearray(os.pread(fd, max(0, self._status.st_size - at), at))
        head = bytes(content[:_SIZE]).ljust(_SIZE, b"\0")
        magic, version, count, _, found = _HEADER.unpack_from(head)
        if (magic, version, count, found) != (_MAGIC, VERSION, len(content) - _SIZE, table.ljust(_TABLE_ID, b"\0")):
            raise CacheDamaged("it is not a map of chunks of this version")
        self._evictions, self.hand = _COUNTERS.unpack_from(head, _EVICTIONS_AT)
        self._chunks = content[_SIZE:]

    def is_kept(self, number: int) -> bool:
        """Whether the data file may have bytes of that chunk, which a reader may use."""
        return number < len(self._chunks) and self._chunks[number] != _ABSENT

    def take_use(self, numbers: Iterable[int]) -> bool:
        """Return whether one of those chunks was used since an eviction last looked, and mark that this one looked."""
        used = [number for number in numbers if self._chunks[number] == _USED]
        for number in used:
            self._chunks[number] = _HERE
        return bool(used)

    def forget(self, numbers: Iterable[int]) -> None:
        """Mark those chunks as absent."""
        for number in numbers:
            self._chunks[number] = _ABSENT

    def write_evicted(self) -> None:
        """Write what was marked, and then count an eviction: the bytes may be freed from now on. Raises OSError."""
        os.pwrite(self._fd, self._chunks, self._at + _SIZE)
        os.pwrite(self._fd, _COUNTERS.pack(self._evictions + 1, self.hand), self._at + _EVICTIONS_AT)

    def restore_time(self) -> None:
        """Give the file the time of its last use again. Raises OSError."""
        os.utime(self._fd, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))


def open_to_write(path: Path) -> tuple[int, OSError | None]:
    """Return a descriptor of *path*, and why nothing can be written there if that is so. Raises OSError."""
    fd = open_file(path)  # refuses anything but a regular file
    try:
        writable = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _READ_ONLY:
            return fd, error
        os.close(fd)
        raise
    os.close(fd)
    return writable, None
