"""Writes one layer during its ingest: index and data file, in a directory of their own until they are verified.

    ingests/<token>.lock         locked by the living ingest
    ingests/<token>/index        the index
    ingests/<token>/data         the data file
    ingests/<token>/chunks       the map of a layer whose bytes are fetched later (chunks.py)
    ingests/<token>/data.expanded the contents of sparse files, until they are put behind the tar stream

Nothing there is synced; layer_store.py says how it becomes visible and durable. One thread after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

from regfs.errors import TooLarge
from regfs.model.digest import Digest
from regfs.store.files.failures import failures_of
from regfs.store.layers.chunk_map import write_map
from regfs.store.layers.content import BLOCK
from regfs.store.layers.data_writer import TAR, DataLayout, DataWriter, DroppedData, ExpandedFiles
from regfs.store.layers.layer_index_writer import LayerIndexWriter
from regfs.store.layers.sparse_map import SparseMap

# Disk space for metadata, which the bytes of content do not count.
_BLOCK = 4096

# The largest sparse file on ext4, a common file system for caches.
_MOST_DATA = 1 << 43
# Of the sparse files of a layer, whose places in the tar stream the index has: some 16 MB.
_MOST_EXTENTS = 1 << 20
_TOO_MUCH = f"the files of the layer have more than {_MOST_DATA} bytes"


class LayerWriter:
    """Writes below *directory*, which exists and is empty. Every method may raise CacheFailure."""

    def __init__(self, directory: Path, *, reserve: Callable[[int], None], names_only: bool = False) -> None:
        """*reserve* is the budget's. *names_only*: write the index, and no data file."""
        self._reserve = reserve
        self.index = directory / "index"
        self.data_file = directory / "data"
        self.names_only = names_only
        self._data = DroppedData() if names_only else DataWriter(self.data_file, reserve=reserve)
        self._count = 0
        self._extents = 0
        self.rows = LayerIndexWriter(self.index)

    def write(self, block: bytes | memoryview) -> None:
        """Write the next bytes of the layer's tar stream."""
        self._data.write(block)

    def begin_expanded(self) -> ExpandedFile:
        """Begin the content of a sparse file; the tar stream has only its extents."""
        return ExpandedFile(self._data.expanded(), self._add_sparse)

    def _add_sparse(self, start: int, size: int, at: int, extents: Sequence[tuple[int, int]]) -> None:
        """Note where the tar stream has the bytes of a sparse file. Those of too many extents need the data file."""
        self._extents += len(extents)
        if self._extents <= _MOST_EXTENTS:
            self.rows.add_sparse_file(start, SparseMap.of(size, at, extents))

    def set_blob(self, blob: Digest) -> None:
        """Note the blob that the spans are ranges of. See LayerSink."""
        self.rows.set_blob(blob)

    def add_span(self, start: int, size: int, *, at: int, stored: int, inner: int, digest: Digest) -> None:
        """Add a span of the tar stream as a chunk. See LayerSink."""
        self.rows.add_chunk((self._count, start, size, at, stored, inner, str(digest)))
        self._count += 1

    def add_restart(self, at: int, bits: int, window: bytes) -> None:
        """Add what inflating needs that begins at byte *at* of the blob. See LayerSink."""
        self.rows.add_restart(at, bits, window)

    def finish(self) -> None:
        """Complete index and data file. No method may be called after it."""
        layout = self._data.finish(TAR)
        if layout.expanded_size:
            self.rows.place_expanded(layout.expanded_offset)
        self.rows.finish(layout)
        with failures_of(self.index):
            self._reserve(self.index.stat().st_size + _BLOCK)

    def close(self) -> None:
        """Close what is open. The maker of the directory removes what was not published."""
        self.rows.abandon()
        self._data.close()


class ExpandedFile:
    """One sparse file among *files*. *add* is called with its offset among them, size, and place in the tar stream."""

    def __init__(self, files: ExpandedFiles, add: Callable[[int, int, int, Sequence[tuple[int, int]]], None]) -> None:
        self._files = files
        self._add = add
        self._start = files.size

    def write(self, view: memoryview) -> None:
        """Take the next bytes; *view* is not kept. Raises CacheFailure."""
        self._files.write(view)

    def skip(self, size: int) -> None:
        """Take *size* zero bytes."""
        self._files.skip(size)

    def finish(self, at: int, extents: Sequence[tuple[int, int]]) -> int:
        """Return the value of the row's *content* until finish(): -1 - the offset among the expanded files."""
        self._add(self._start, self._files.size - self._start, at, extents)
        self._files.end_file()
        return -1 - self._start


class PartialLayerWriter:
    """Writes a lazy layer, whose bytes are fetched later, below *directory*. Methods may raise CacheFailure."""

    def __init__(self, directory: Path, *, source: str, boot: str, reserve: Callable[[int], None]) -> None:
        self._reserve = reserve
        self._boot = boot
        self.size = 0
        self._count = 0
        self._source = source
        self.index = directory / "index"
        self.data_file = directory / "data"
        self.map_file = directory / "chunks"
        self.rows = LayerIndexWriter(self.index)

    def begin_archive(self, size: int) -> None:
        """Let the data file begin with the tar stream itself, of *size* bytes."""
        self.begin_file(size)

    def begin_file(self, size: int) -> int:
        """Allocate *size* bytes of the data file for a file; return the content of its row."""
        start = self.size
        self.size += size + -size % BLOCK
        if self.size > _MOST_DATA:
            raise TooLarge(_TOO_MUCH)
        return start

    def add_chunk(self, start: int, size: int, *, at: int, stored: int, inner: int, digest: str) -> None:
        """Record where the *size* bytes at *start* of the data file come from (chunks.py); in order."""
        self.rows.add_chunk((self._count, start, size, at, stored, inner, digest))
        self._count += 1

    def places(self, sizes: Sequence[int]) -> list[int]:
        """Return where in the data file files of these *sizes* would begin, and where one behind them would."""
        return list(accumulate([size + -size % BLOCK for size in sizes], initial=self.size))

    def add_chunks(
        self, starts: Sequence[int], sizes: Sequence[int], ats: Sequence[int], stored: Sequence[int],
        digests: Sequence[str | None], *, end: int,
    ) -> None:  # fmt: skip
        """Allocate the data file up to *end*; record the chunks at *starts*, each of which is alone in a member."""
        self.size = end
        if end > _MOST_DATA:
            raise TooLarge(_TOO_MUCH)
        self.rows.add_chunks(self._count, starts, sizes, ats, stored, digests)
        self._count += len(starts)

    def finish(self) -> None:
        """Complete the files: a data file that is one hole, and a map in which no chunk is present."""
        with failures_of(self.data_file), self.data_file.open("xb") as file:
            file.truncate(self.size)
        write_map(self.map_file, self._count, boot=self._boot)
        self.rows.finish(DataLayout(self._source, self.size))
        with failures_of(self.index):
            self._reserve(self.index.stat().st_size + self.map_file.stat().st_size + _BLOCK)

    def close(self) -> None:
        """Close what is open. The maker of the directory removes what was not published."""
        self.rows.abandon()
