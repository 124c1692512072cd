"""The chunks of a layer that is fetched piece by piece: which of them are here, and putting them there.

    layers/<diff id>.tar       the data file, sparse: as long as all files together, with holes for what is not here
    layers/<diff id>.chunks    the map, which says what is here
        "rgfc", u32 version, u64 number of chunks, 36 bytes boot id, zeros up to 64
        one byte a chunk: 0 absent; 1 here; 2 written before the last boot of the machine, to be verified before use

A chunk is verified, written into the data file, and only then marked. Both go through the kernel's page cache, so that
a killed process leaves nothing marked that is not there. A crash of the machine may: hence a map of another boot is
not believed, and each chunk is hashed once more when it is used for the first time (a second a gigabyte).

Two processes may write and mark the same chunk at once: they write the same bytes.
Thread rule: any thread.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from regfs.errors import CacheDamaged
from regfs.model.digest import Digest
from regfs.store.cached_files import open_file
from regfs.store.failures import failures_of

VERSION = 1
_MAGIC = b"rgfc"
_HEADER = struct.Struct("<4sIQ36s")
_SIZE = 64
_BOOT_AT = 16
_ABSENT, _HERE, _DOUBTED = 0, 1, 2
_DOUBT = bytes.maketrans(bytes([_HERE]), bytes([_DOUBTED]))


class StoredChunk(NamedTuple):
    """One chunk of a layer: the *size* bytes at *start* of its data file, numbered in the order of *start*.

    *at*, *stored*, *inner*, *digest*: where they come from, see layers/formats/format.py.
    """

    number: int
    start: int
    size: int
    at: int
    stored: int
    inner: int
    digest: Digest

    @property
    def stop(self) -> int:
        """Where it ends in the data file."""
        return self.start + self.size


def write_map(path: Path, count: int, *, boot: str) -> None:
    """Write the map of a layer of *count* chunks, none of which is here. Raises CacheFailure."""
    with failures_of(path):
        path.write_bytes(_HEADER.pack(_MAGIC, VERSION, count, boot.encode()).ljust(_SIZE, b"\0") + bytes(count))


class ChunkMap:
    """The map at *path*."""

    def __init__(self, path: Path, *, boot: str) -> None:
        """Raises FileNotFoundError where there is none, CacheDamaged, CacheFailure."""
        with failures_of(path):
            fd = self._opened(path)
            try:
                self._bytes = mmap.mmap(fd, 0)
                fcntl.flock(fd, fcntl.LOCK_EX)
                try:
                    self._check(path)
                    self._doubt(boot)
                finally:
                    fcntl.flock(fd, fcntl.LOCK_UN)  # a mapping keeps the open file, and would keep the lock
            except ValueError as error:  # an empty file
                raise CacheDamaged(f"{path}: {error}") from error
            finally:
                os.close(fd)

    @staticmethod
    def _opened(path: Path) -> int:
        os.close(open_file(path))  # whatever stands in its place
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def _check(self, path: Path) -> None:
        head = self._bytes[:_SIZE]
        magic, version, count, _ = _HEADER.unpack_from(head.ljust(_SIZE, b"\0"))
        if (magic, version, count) != (_MAGIC, VERSION, len(self._bytes) - _SIZE):
            raise CacheDamaged(f"{path}: it is no map of chunks of this version")
        self.count = count

    def _doubt(self, boot: str) -> None:
        """Take what was written before this boot for something to be verified; the caller holds the file's lock."""
        expected = boot.encode()[:36].ljust(36, b"\0")
        if self._bytes[_BOOT_AT : _BOOT_AT + 36] == expected:
            return
        self._bytes[_SIZE:] = self._bytes[_SIZE:].translate(_DOUBT)
        self._bytes[_BOOT_AT : _BOOT_AT + 36] = expected

    def is_here(self, number: int) -> bool:
        """Tell whether that chunk may be read as it is."""
        return self._bytes[_SIZE + number] == _HERE

    def is_doubted(self, number: int) -> bool:
        """Tell whether that chunk may be read once its bytes were found right."""
        return self._bytes[_SIZE + number] == _DOUBTED

    def mark(self, number: int, *, here: bool = True) -> None:
        """Note that the bytes of that chunk are in the data file, or that they are not."""
        self._bytes[_SIZE + number] = _HERE if here else _ABSENT

    def is_complete(self) -> bool:
        """Tell whether every chunk is here; takes a microsecond for some ten thousand."""
        return self._bytes.find(bytes([_ABSENT]), _SIZE) < 0 and self._bytes.find(bytes([_DOUBTED]), _SIZE) < 0


class PartialData:
    """A data file and its map."""

    def __init__(self, data: Path, chunks: Path, *, boot: str, reserve: Callable[[int], None]) -> None:
        """*reserve* is the budget's. Raises FileNotFoundError, CacheDamaged, CacheFailure."""
        self.map = ChunkMap(chunks, boot=boot)
        self._path = data
        self._reserve = reserve
        with failures_of(data):
            os.close(open_file(data))
            self._fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def missing(self, chunks: Iterable[StoredChunk]) -> list[StoredChunk]:
        """Return those of *chunks* that are not here. May hash what was written before the last boot."""
        return [chunk for chunk in chunks if not self.map.is_here(chunk.number) and not self._is_sound(chunk)]

    def keep(self, chunk: StoredChunk, content: bytes) -> None:
        """Put the bytes of *chunk*, which the caller has verified, where they belong. Raises CacheFailure."""
        self._reserve(len(content))
        view = memoryview(content)
        at = chunk.start
        with failures_of(self._path):
            while view:
                written = os.pwrite(self._fd, view, at)
                at += written
                view = view[written:]
        self.map.mark(chunk.number)

    def _is_sound(self, chunk: StoredChunk) -> bool:
        if not self.map.is_doubted(chunk.number):
            return False
        with failures_of(self._path):
            content = os.pread(self._fd, chunk.size, chunk.start)
        is_right = chunk.digest.matches(content)
        self.map.mark(chunk.number, here=is_right)
        return is_right
