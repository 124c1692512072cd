"""Takes one layer from the pass: its index, its pack, its objects, in a directory of their own until they are right.

    passes/<token>.lock          locked by the living pass
    passes/<token>/index         the index
    passes/<token>/pack          small files, one after the other
    passes/<token>/o<number>     a big file, until its name, its sha256, is known

Nothing there is synced; layer_store.py says how it becomes visible and durable. One thread after the other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from regfs.store.failures import failures_of
from regfs.store.layer_index import LayerIndexWriter
from regfs.store.uncached_writes import UncachedWrites

_PACK_BUFFER = 1 << 20
# Zeros are left out of the file where there are so many that a hole is worth a seek.
_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
# Of the disk, for what is not counted in bytes of content.
_BLOCK = 4096
_SUMS_LINE = 150


class LayerWriter:
    """Writes below *directory*, which exists and is empty. Every method may raise CacheFailure."""

    def __init__(self, directory: Path, *, object_path: Callable[[str], Path], reserve: Callable[[int], None]) -> None:
        """*object_path* tells where an object of that name is in the cache; *reserve* is the budget's."""
        self._directory = directory
        self._object_path = object_path
        self._reserve = reserve
        self._output = UncachedWrites()
        self._pack_sum = hashlib.sha256()
        self._begun = 0
        self._packed: list[bytes] = []
        self._packed_size = 0
        self._pack_end = 0
        self.objects: dict[str, Path] = {}
        self.index = directory / "index"
        self.pack_file = directory / "pack"
        with failures_of(self.pack_file):
            self._pack_fd = os.open(self.pack_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.rows = LayerIndexWriter(self.index)

    def pack(self, content: bytes) -> int:
        """Take the content of a small file; return its offset in the pack."""
        offset = self._pack_end
        self._packed.append(content)
        self._packed_size += len(content)
        self._pack_end += len(content)
        if self._packed_size >= _PACK_BUFFER:
            self._write_pack()
        return offset

    def begin_object(self) -> ObjectWriter:
        """Begin a big file."""
        self._begun += 1
        path = self._directory / f"o{self._begun}"
        self._reserve(_BLOCK)  # the last one is not filled
        return ObjectWriter(path, output=self._output, finished=self._keep_object, reserve=self._reserve)

    def finish(self) -> None:
        """Make index and pack whole; nothing may be put afterwards."""
        self._write_pack()
        self.rows.finish()
        with failures_of(self.index):
            self._reserve(self.index.stat().st_size + len(self.objects) * _SUMS_LINE + _BLOCK)

    @property
    def pack_sha256(self) -> str:
        """The hexadecimal sha256 of the pack, once it is whole."""
        return self._pack_sum.hexdigest()

    def close(self) -> None:
        """Close what is open. What was not published is removed by the one who made the directory."""
        self.rows.abandon()
        if self._pack_fd >= 0:
            os.close(self._pack_fd)
            self._pack_fd = -1

    def _keep_object(self, path: Path, name: str) -> None:
        if name in self.objects:
            path.unlink()
            return
        self.objects[name] = path
        there = self._object_path(name)
        # What the cache has already takes the place of what was written, under a second name of its own: it may be
        # evicted before this layer is published, and comes back then. Where that cannot be, ours stays.
        with suppress(OSError):
            if there.stat().st_size == path.stat().st_size:
                second = path.with_suffix(".there")
                second.hardlink_to(there)
                second.rename(path)

    def _write_pack(self) -> None:
        content = b"".join(self._packed)
        self._reserve(len(content))
        self._pack_sum.update(content)
        with failures_of(self.pack_file):
            self._output.write(self._pack_fd, memoryview(content))
        self._packed = []
        self._packed_size = 0


class ObjectWriter:
    """Writes and hashes one big file at *path*, with holes where its zeros are."""

    def __init__(
        self,
        path: Path,
        *,
        output: UncachedWrites,
        finished: Callable[[Path, str], None],
        reserve: Callable[[int], None],
    ) -> None:
        self._path = path
        self._output = output
        self._finished = finished
        self._reserve = reserve
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._ends_in_hole = False
        with failures_of(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def __del__(self) -> None:
        # A pass that failed half-way through a file drops it without a word.
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def write(self, view: memoryview) -> None:
        """Take the next bytes. Raises CacheFailure."""
        self._sha256.update(view)
        self._size += len(view)
        with failures_of(self._path):
            self._ends_in_hole = _is_zeros(view)
            if self._ends_in_hole:
                os.lseek(self._fd, len(view), os.SEEK_CUR)
            else:
                self._reserve(len(view))
                self._output.write(self._fd, view)

    def skip(self, size: int) -> None:
        """Take *size* zero bytes. Raises CacheFailure."""
        if size <= 0:
            return
        self._size += size
        self._ends_in_hole = True
        with failures_of(self._path):
            os.lseek(self._fd, size, os.SEEK_CUR)
        while size:
            step = min(size, _HOLE)
            self._sha256.update(_ZEROS[:step])
            size -= step

    def finish(self) -> bytes:
        """Close the file and return its sha256. Raises CacheFailure."""
        with failures_of(self._path):
            if self._ends_in_hole:
                os.ftruncate(self._fd, self._size)
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._finished(self._path, self._sha256.hexdigest())
        return self._sha256.digest()


def _is_zeros(view: memoryview) -> bool:
    """Tell whether *view* is worth a hole. Nearly all views are not: their first or last byte says so."""
    return (
        len(view) >= _HOLE
        and not view[0]
        and not view[-1]
        and all(view[at : at + _HOLE].tobytes() == _ZEROS[: len(view) - at] for at in range(0, len(view), _HOLE))
    )
