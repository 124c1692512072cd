"""The chunks of a lazy layer: the map of those that the data file has, and writing verified ones into it.

    layers/<diff id>.tar       the data file, sparse: as long as all files together, with holes for missing chunks
    layers/<diff id>.chunks    the map
        "rgfc", u32 version, u64 number of chunks, 36 bytes boot id, 12 bytes id of the table of chunks, or zeros
        one byte a chunk: 0 absent; 1 here; 2 written before the last boot of the machine, to be verified before use

    layers/<diff id>.parts     of a plain layer whose data file was evicted: both in one file, the map at the end. It is
                               of the chunks in one index; another ingest may write another index: hence the id

A chunk is verified, written into the data file, and only then marked. Both go through the kernel's page cache, so that
a killed process marks no chunk that it has not written. A crash of the machine can leave one: each chunk of a map from
another boot is hashed again at its first use (a second for each gigabyte).

On a full or read-only disk, memory holds a fetched chunk for the readers that wait for it (unkept_chunks.py).

Two processes may write and mark the same chunk at once: they write the same bytes.
Thread rule: any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import CacheDamaged, CacheFailure
from regfs.model.digest import Digest
from regfs.store.files.cached_files import open_file
from regfs.store.files.failures import failures_of
from regfs.store.layers.unkept_chunks import UnkeptChunks

VERSION = 1
_MAGIC = b"rgfc"
_HEADER = struct.Struct("<4sIQ36s12s")
_SIZE = _HEADER.size
_BOOT_AT = 16
_TABLE_ID = 12
_ABSENT, _HERE, _DOUBTED = 0, 1, 2
_DOUBT = bytes.maketrans(bytes([_HERE]), bytes([_DOUBTED]))
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


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
        """The offset of its end in the data file."""
        return self.start + self.size


def empty_map(count: int, *, boot: str, table: bytes = b"") -> bytes:
    """Return the map of a layer of *count* chunks, none of which is here; *table* is the id of the table of chunks."""
    return _HEADER.pack(_MAGIC, VERSION, count, boot.encode(), table) + bytes(count)


def write_map(path: Path, count: int, *, boot: str) -> None:
    """Write the map of a layer of *count* chunks, none of which is here. Raises CacheFailure."""
    with failures_of(path):
        path.write_bytes(empty_map(count, boot=boot))


class ChunkMap:
    """The map at *path*, cached in memory: a chunk that is here stays here as long as the file does."""

    def __init__(self, path: Path, *, boot: str, at: int = 0, table: bytes = b"") -> None:
        """The map begins *at* bytes into the file, and is of the table of chunks with that id.

        Raises OSError where it cannot be opened, CacheDamaged, CacheFailure.
        """
        self._fd = -1
        self._at = at
        self._table = table.ljust(_TABLE_ID, b"\0")
        self._fd, self.read_only = _open_to_write(path)
        with failures_of(path):
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                self._seen = self._read(path, boot)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _read(self, path: Path, boot: str) -> bytearray:
        """Return the bytes of the chunks, those in doubt that were written before this boot; the file is locked."""
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
        return self._seen[number] == _HERE or self._look(number) == _HERE

    def is_doubted(self, number: int) -> bool:
        """Whether that chunk was written before this boot and has to be verified first."""
        return self._look(number) == _DOUBTED

    def _look(self, number: int) -> int:
        """Return the state of the chunk in the file: another process may have fetched it meanwhile."""
        if self._seen[number] != _HERE:
            stored = os.pread(self._fd, 1, self._at + _SIZE + number)
            self._seen[number] = (stored.translate(_DOUBT) if self._doubts else stored or b"\0")[0]
        return self._seen[number]

    def mark(self, number: int, *, here: bool = True) -> None:
        """Mark that chunk as here, or as absent. Raises OSError."""
        value = _HERE if here else _ABSENT
        self._seen[number] = value
        # By pwrite, not through a mapping: a page that cannot be written would kill the process.
        os.pwrite(self._fd, bytes([value]), self._at + _SIZE + number)

    def is_complete(self) -> bool:
        """Whether every chunk is here; takes a microsecond for ten thousand of them."""
        if self._seen.count(_HERE) < self.count and not self._doubts:
            self._seen[:] = os.pread(self._fd, self.count, self._at + _SIZE)
        return self._seen.count(_HERE) == self.count


class PartialData:
    """A data file and its map, closed when the last reference to them goes, as a DataFile is (data_files.py)."""

    def __init__(
        self,
        data: Path,
        chunks: Path | None = None,
        *,
        boot: str,
        table: bytes = b"",
        reserve: Callable[[int], None],
        unkept: UnkeptChunks | None = None,
        let_go: Callable[[], object] = lambda: None,
        size: int = 0,
        refusal: CacheFailure | None = None,
    ) -> None:
        """*reserve* is the budget's; *unkept* holds chunks that cannot be written; *let_go* drops references to this.

        *size* is what the data file has, for check(). Without *chunks* the map, of the chunks of *table*, follows it in
        the same file. *refusal*: why nothing can be kept, in the case that the file is in memory.

        Raises OSError where one of them cannot be opened, CacheDamaged, CacheFailure.
        """
        self.fd = -1
        self.recent = True
        self.refusal = refusal
        self.failure: CacheFailure | None = None  # why the last chunk could not be written
        self.map = ChunkMap(chunks or data, boot=boot, at=0 if chunks else size, table=table)
        self._path = data
        self._size = size
        self._reserve = reserve
        self._unkept = unkept or UnkeptChunks()
        self._let_go = let_go
        self.fd, self._read_only = _open_to_write(data)
        if chunks is None and not self.map.is_in(self.fd):
            raise CacheDamaged(f"{data}: it was replaced while it was opened")

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def close_if_idle(self) -> bool:
        """Drop references, so that both files are closed as soon as no file of the layer is open."""
        self._let_go()
        return True

    def check(self) -> None:
        """Raise CacheDamaged where the data file has lost its end.

        Chunks that are here would read as zeros once another chunk is written behind them.
        """
        with failures_of(self._path):
            size = os.fstat(self.fd).st_size
        if size < self._size:
            raise CacheDamaged(f"{self._path}: cut off after {size} bytes")

    def is_file_at(self, path: Path) -> bool:
        """Whether the data file is the one at *path*. Raises OSError."""
        return os.path.samestat(os.fstat(self.fd), path.stat())

    def missing(self, chunks: Iterable[StoredChunk]) -> list[StoredChunk]:
        """Return the *chunks* that the file lacks. May hash chunks that were written before this boot."""
        return [chunk for chunk in chunks if not self.map.is_here(chunk.number) and not self._is_sound(chunk)]

    def keep(self, chunk: StoredChunk, content: bytes) -> None:
        """Write the verified bytes of *chunk* into the data file and mark it. Raises CacheFailure."""
        if self.refusal is not None:
            raise self.refusal
        with failures_of(self._path):
            if read_only := self._read_only or self.map.read_only:
                raise read_only
        self.check()
        self._reserve(len(content))
        view = memoryview(content)
        at = chunk.start
        with failures_of(self._path):
            while view:
                written = os.pwrite(self.fd, view, at)
                at += written
                view = view[written:]
            self.map.mark(chunk.number)

    def keep_or_hold(self, chunk: StoredChunk, content: bytes) -> None:
        """Do as keep(); if the disk refuses, hold the bytes in memory for the readers that wait for them."""
        try:
            self.keep(chunk, content)
            self.failure = None
        except CacheFailure as failure:
            self.failure = failure
            self._unkept.hold(chunk.digest, content, failure)

    def held(self, missing: Iterable[StoredChunk]) -> dict[StoredChunk, bytes]:
        """Return the bytes of those of the chunks that only memory holds."""
        return {chunk: content for chunk in missing if (content := self._unkept.find(chunk.digest)) is not None}

    def _is_sound(self, chunk: StoredChunk) -> bool:
        if not self.map.is_doubted(chunk.number):
            return False
        with failures_of(self._path):
            content = os.pread(self.fd, chunk.size, chunk.start)
        is_right = chunk.digest.matches(content)
        with suppress(OSError):  # the next process hashes it again
            self.map.mark(chunk.number, here=is_right)
        return is_right


def _open_to_write(path: Path) -> tuple[int, OSError | None]:
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
