"""Takes one layer from its ingest: its index and its data file, in a directory of their own until they are right.

    passes/<token>.lock          locked by the living ingest
    passes/<token>/index         the index
    passes/<token>/data          the data file
    passes/<token>/data.expanded the contents of sparse files, until they are put behind the tar stream

Nothing there is synced; layer_store.py says how it becomes visible and durable. One thread after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regfs.store.data_writer import DataWriter, ExpandedFiles
from regfs.store.failures import failures_of
from regfs.store.layer_index import LayerIndexWriter

# Of the disk, for what is not counted in bytes of content.
_BLOCK = 4096

TAR = "tar"
"""The source of an index that was made from the tar stream itself."""


class LayerWriter:
    """Writes below *directory*, which exists and is empty. Every method may raise CacheFailure."""

    def __init__(self, directory: Path, *, reserve: Callable[[int], None]) -> None:
        """*reserve* is the budget's."""
        self._reserve = reserve
        self.index = directory / "index"
        self.data_file = directory / "data"
        self._data = DataWriter(self.data_file, reserve=reserve)
        self.rows = LayerIndexWriter(self.index)

    def write(self, block: bytes | memoryview) -> None:
        """Take the next bytes of the layer's tar stream."""
        self._data.write(block)

    def begin_expanded(self) -> ExpandedFile:
        """Begin the content of a sparse file, of which the tar stream has the extents alone."""
        return ExpandedFile(self._data.expanded())

    def finish(self) -> None:
        """Make index and data file whole; nothing may be put afterwards."""
        layout = self._data.finish(TAR)
        if layout.expanded_size:
            self.rows.place_expanded(layout.expanded_offset)
        self.rows.finish(layout)
        with failures_of(self.index):
            self._reserve(self.index.stat().st_size + _BLOCK)

    def close(self) -> None:
        """Close what is open. What was not published is removed by the one who made the directory."""
        self.rows.abandon()
        self._data.close()


class ExpandedFile:
    """One sparse file among *files*."""

    def __init__(self, files: ExpandedFiles) -> None:
        self._files = files
        self._start = files.size

    def write(self, view: memoryview) -> None:
        """Take the next bytes; *view* is not kept. Raises CacheFailure."""
        self._files.write(view)

    def skip(self, size: int) -> None:
        """Take *size* zero bytes."""
        self._files.skip(size)

    def finish(self) -> int:
        """Return what the row's content is until finish(): -1 - its offset among the expanded files."""
        self._files.end_file()
        return -1 - self._start
