"""Writes the data file of a plain layer: its tar stream, and behind it the expanded contents of sparse files.

    [0, tar size)                 the tar stream: its digest is the layer's diff id
    zeros                         up to a multiple of 512
    [expanded offset, end)        the contents of sparse files (GNU's dialects store their extents alone), each from a
                                  multiple of 512 on; their sha256 is in the index (layer_index.py)

Long runs of zeros become holes. Used by layer_writer.py. One thread after the other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regfs.store.files.failures import failures_of
from regfs.store.files.uncached_writes import UncachedWrites
from regfs.store.layers.content import BLOCK

_HOLE = 1 << 16
_ZEROS = bytes(_HOLE)
_COPY = 4 << 20


TAR = "tar"
"""The source of an index that was made from the tar stream itself."""


class DataLayout(NamedTuple):
    """The sizes of a data file's two parts, the tar stream and the expanded files, and the sha256 of the latter.

    *source* is the format that the layer's names came from: "tar" for the tar stream itself.
    """

    source: str
    tar_size: int
    expanded_size: int = 0
    expanded_sha256: str = ""

    @property
    def expanded_offset(self) -> int:
        """The offset of the expanded files."""
        return _padded(self.tar_size)

    @property
    def size(self) -> int:
        """The size of the data file."""
        return self.expanded_offset + self.expanded_size


class DataWriter:
    """Writes the data file at *path*, which is new; *reserve* is the budget's. Methods may raise CacheFailure."""

    def __init__(self, path: Path, *, reserve: Callable[[int], None]) -> None:
        self.path = path
        self._reserve = reserve
        self._size = 0
        self._expanded: ExpandedFiles | None = None
        with failures_of(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._output = UncachedWrites(self._fd)

    def write(self, block: bytes | memoryview) -> None:
        """Write the next bytes of the tar stream, and keep no reference to them.

        Blocks of whole, aligned pages (all but the last) can go past the page cache.
        """
        view = memoryview(block)
        with failures_of(self.path):
            for start, stop in _runs_of_data(view):
                self._reserve(stop - start)
                self._output.write(view[start:stop], self._size + start)
        self._size += len(view)

    def expanded(self) -> ExpandedFiles:
        """Return the writer for the contents of sparse files."""
        if self._expanded is None:
            self._expanded = ExpandedFiles(self.path.with_suffix(".expanded"), reserve=self._reserve)
        return self._expanded

    def finish(self, source: str) -> DataLayout:
        """Add the expanded files, complete the file, and return its layout."""
        layout = DataLayout(source, self._size)
        with failures_of(self.path):
            if self._expanded is not None:
                layout = DataLayout(source, self._size, self._expanded.size, self._expanded.sha256)
                self._expanded.copy_to(self._fd, layout.expanded_offset)
            os.ftruncate(self._fd, layout.size)
        return layout

    def close(self) -> None:
        """Close what is open."""
        if self._expanded is not None:
            self._expanded.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DroppedData:
    """Takes the place of a DataWriter for a layer of which only the names are kept."""

    def __init__(self) -> None:
        self._size = 0
        self._expanded: ExpandedFiles | None = None

    def write(self, block: bytes | memoryview) -> None:
        """Count the next bytes of the tar stream."""
        self._size += len(block)

    def expanded(self) -> ExpandedFiles:
        """Return the writer for the contents of sparse files."""
        self._expanded = self._expanded or ExpandedFiles(None, reserve=lambda _size: None)
        return self._expanded

    def finish(self, source: str) -> DataLayout:
        """Return the layout that the data file would have."""
        if self._expanded is None:
            return DataLayout(source, self._size)
        return DataLayout(source, self._size, self._expanded.size, self._expanded.sha256)

    def close(self) -> None:
        """Nothing is open."""


class ExpandedFiles:
    """The contents of sparse files, one behind the other, at *path* until the size of the tar stream is known.

    Without *path* they are only measured.
    """

    def __init__(self, path: Path | None, *, reserve: Callable[[int], None]) -> None:
        self._path = path
        self._reserve = reserve
        self._sha256 = hashlib.sha256()
        self.size = 0
        self._fd = -1
        if path is not None:
            with failures_of(path):
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    @property
    def sha256(self) -> str:
        """The hexadecimal sha256 of all of it, the holes as the zeros that they are."""
        return self._sha256.hexdigest()

    def write(self, view: memoryview) -> None:
        """Take the next bytes of a file. Raises CacheFailure."""
        self._sha256.update(view)
        self._reserve(len(view))
        if self._path is None:
            self.size += len(view)
            return
        with failures_of(self._path):
            while view:
                written = os.pwrite(self._fd, view, self.size)
                self.size += written
                view = view[written:]

    def skip(self, size: int) -> None:
        """Take *size* zero bytes of a file."""
        self.size += size
        while size > 0:
            step = min(size, _HOLE)
            self._sha256.update(_ZEROS[:step])
            size -= step

    def end_file(self) -> None:
        """End a file: the next one begins at a multiple of 512."""
        self.skip(_padded(self.size) - self.size)

    def copy_to(self, fd: int, offset: int) -> None:
        """Copy all data between holes to *offset* of another file. Raises OSError."""
        os.ftruncate(self._fd, self.size)
        at = 0
        while at < self.size:
            try:
                at = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError:  # ENXIO: the rest is a hole
                return
            end = os.lseek(self._fd, at, os.SEEK_HOLE)
            while at < end:
                content = os.pread(self._fd, min(_COPY, end - at), at)
                view = memoryview(content)
                while view:
                    written = os.pwrite(fd, view, offset + at)
                    at += written
                    view = view[written:]

    def close(self) -> None:
        """Close and remove the file."""
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _runs_of_data(view: memoryview) -> list[tuple[int, int]]:
    """Return the ranges of *view* that are not holes."""
    runs: list[tuple[int, int]] = []
    start = 0
    for at in range(0, len(view), _HOLE):
        # Nearly all pieces are not zeros: their first or last byte says so.
        if view[at] or len(view) - at < _HOLE or view[at + _HOLE - 1] or view[at : at + _HOLE].tobytes() != _ZEROS:
            continue
        if start < at:
            runs.append((start, at))
        start = at + _HOLE
    if start < len(view):
        runs.append((start, len(view)))
    return runs
