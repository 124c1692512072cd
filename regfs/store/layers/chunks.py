"""The chunks of a lazy layer: where they come from, and writing verified ones into its data file.

    layers/<diff id>.tar       the data file, sparse: as long as all files together, with holes for missing chunks
    layers/<diff id>.chunks    the map of those that it has (chunk_map.py)
    layers/<diff id>.parts     of a plain layer whose data file was evicted: both in one file, the map at the end

A chunk is verified, written into the data file, and only then marked. Both go through the kernel's page cache, so that
a killed process marks no chunk that it has not written.

On a full or read-only disk, memory holds a fetched chunk for the readers that wait for it (unkept_chunks.py).

Two processes may write and mark the same chunk at once: they write the same bytes.
Thread rule: any thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import CacheDamaged, CacheFailure, CacheFull
from regfs.model.digest import Digest
from regfs.store.files.failures import failures_of, without_frames
from regfs.store.layers.chunk_map import ChunkMap, open_to_write
from regfs.store.layers.unkept_chunks import UnkeptChunks

_IN_MEMORY_S = 5.0


_BLOCK = 4096
"""What the common file systems give to a file at once."""
_BATCH = 1 << 20


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


Piece = tuple[StoredChunk, bytes]
"""A chunk and its verified bytes."""


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
        self.refusal = None if refusal is None else without_frames(refusal)
        self.failure: CacheFailure | None = None  # why the last chunk could not be written
        self.map = ChunkMap(chunks or data, boot=boot, at=0 if chunks else size, table=table)
        self._path = data
        self._size = size
        self._reserve = reserve
        self._unkept = unkept or UnkeptChunks()
        self._let_go = let_go
        self._in_memory_until_s = 0.0
        self.fd, self._read_only = open_to_write(data)
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

    def evictions(self) -> int:
        """Return how many evictions there were of chunks of this file, by any process."""
        return self.map.evictions()

    def is_file_at(self, path: Path) -> bool:
        """Whether the data file is the one at *path*. Raises OSError."""
        return os.path.samestat(os.fstat(self.fd), path.stat())

    def missing(self, chunks: Iterable[StoredChunk]) -> list[StoredChunk]:
        """Return the *chunks* that the file lacks. May hash chunks that were written before this boot."""
        self.map.look_again()
        chunks = list(chunks)
        absent = self.map.absent(chunk.number for chunk in chunks)
        return [
            chunk for chunk in chunks if chunk.number in absent and not (absent[chunk.number] and self._is_sound(chunk))
        ]

    def keep(self, chunk: StoredChunk, content: bytes) -> None:
        """Write the verified bytes of *chunk* into the data file and mark it. Raises CacheFailure."""
        self.keep_all([(chunk, content)])

    def keep_all(self, pieces: Sequence[Piece]) -> None:
        """Write the verified bytes of some chunks into the data file, and mark the chunks. Raises CacheFailure."""
        if self.refusal is not None:
            raise without_frames(self.refusal)
        with failures_of(self._path):
            if read_only := self._read_only or self.map.read_only:
                raise OSError(read_only.errno, read_only.strerror)
        self.check()
        numbers = {chunk.number for chunk, _ in pieces}
        self._reserve(sum(self._room_of(chunk, numbers) for chunk, _ in pieces))
        with failures_of(self._path), self.map.without_evictions():
            for chunk, content in pieces:
                self._write(chunk.start, content)
            self.map.mark_all(numbers)

    def _write(self, at: int, content: bytes) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self.fd, view, at)
            at += written
            view = view[written:]

    def _room_of(self, chunk: StoredChunk, beside: Collection[int]) -> int:
        """Return how many bytes of the disk *chunk* takes; a small one is often in a block that others have taken.

        The chunks *beside* it are written with it.
        """
        first, stop = chunk.start // _BLOCK, -(-chunk.stop // _BLOCK)
        before = chunk.number - 1
        is_shared = chunk.start % _BLOCK and chunk.number and (before in beside or self.map.is_here(before))
        return (stop - first - bool(is_shared)) * _BLOCK

    def keep_or_hold(self, chunk: StoredChunk, content: bytes) -> None:
        """Do as keep(); if the disk refuses, hold the bytes in memory for the readers that wait for them."""
        self.keep_or_hold_all([(chunk, content)])

    def keep_or_hold_all(self, pieces: Sequence[Piece]) -> None:
        """Do as keep_all(); if the disk refuses, hold bytes in memory for the readers that wait for them."""
        try:
            if time.monotonic() < self._in_memory_until_s:
                raise CacheFull("the cache is too small for what is read at once; --cache-size allows more")
            self.keep_all(pieces)
            self.failure = None
        except CacheFailure as failure:
            if len(pieces) > 1:
                for piece in pieces:
                    self.keep_or_hold_all([piece])
                return
            self.failure = without_frames(failure)
            for chunk, content in pieces:
                self._unkept.hold(chunk.digest, content, failure)

    def hold_for_a_while(self) -> None:
        """Hold chunks in memory for some seconds: in the data file they are evicted before they are read."""
        self._in_memory_until_s = time.monotonic() + _IN_MEMORY_S

    def held(self, missing: Iterable[StoredChunk]) -> dict[StoredChunk, bytes]:
        """Return the bytes of those of the chunks that only memory holds."""
        return {chunk: content for chunk in missing if (content := self._unkept.find(chunk.digest)) is not None}

    def _is_sound(self, chunk: StoredChunk) -> bool:
        with failures_of(self._path), self.map.without_evictions():
            content = os.pread(self.fd, chunk.size, chunk.start)
            is_right = chunk.digest.matches(content)
            with suppress(OSError):  # the next process hashes it again
                self.map.mark(chunk.number, here=is_right)
        return is_right


class Batch:
    """Chunks that *data* keeps or holds together, which takes a third of the time of many small ones."""

    def __init__(self, data: PartialData, came: Callable[[Collection[int]], None]) -> None:
        """*came* is called with the numbers of chunks that were kept or are held."""
        self._data = data
        self._came = came
        self._pieces: list[Piece] = []
        self._size = 0

    def add(self, chunk: StoredChunk, content: bytes) -> None:
        """Add the verified bytes of *chunk*; keep what there is if that is much."""
        self._pieces.append((chunk, content))
        self._size += len(content)
        if self._size >= _BATCH:
            self.keep()

    def keep(self) -> None:
        """Keep or hold what was added."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces:
            self._data.keep_or_hold_all(pieces)
            self._came([chunk.number for chunk, _ in pieces])
