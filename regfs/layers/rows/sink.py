"""The interface between an ingest in layers/ and store/layers/layer_writer.py, which keeps what the ingest finds.

One thread calls a sink. Its methods may raise CacheFailure; what was put becomes visible when the ingest is over
and both digests were found right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from regfs.model.digest import Digest
from regfs.model.layer_entry import Row


class RowSink(Protocol):
    """Takes the rows of a layer's index. A row that is added again takes the place of the former one."""

    def add(self, row: Row) -> None: ...

    def add_file(self, row: int, parent: int, name: bytes, attributes: bytes, content: int) -> None:
        """Add a row with a new number: a file with bytes, and without links or extended attributes."""

    def add_new(
        self, first: int, parents: Sequence[int], names: Sequence[bytes], attributes: Sequence[bytes],
        contents: Sequence[int | None], targets: Sequence[bytes],
    ) -> None:  # fmt: skip
        """Add rows with new numbers from *first* on, without flags and extended attributes; *targets*: b"" for none."""

    def remove(self, rows: Iterable[int]) -> None: ...

    def rename(self, rows: Iterable[tuple[int, int, bytes]]) -> None: ...

    def add_flags(self, rows: Iterable[int], flags: int) -> None: ...

    def set_nlinks(self, nlinks: Iterable[tuple[int, int]]) -> None: ...


class ExpandedSink(Protocol):
    """Takes the content of one sparse file."""

    def write(self, view: memoryview) -> None:
        """Take the next bytes; *view* is not kept."""

    def skip(self, size: int) -> None:
        """Take *size* zero bytes."""

    def finish(self, at: int, extents: Sequence[tuple[int, int]]) -> int:
        """Return the value of *content* for the row of the file.

        Its *extents*, each an offset and a size, are stored one behind the other from byte *at* of the tar stream on.
        """


class LayerSink(Protocol):
    """Takes a layer."""

    @property
    def rows(self) -> RowSink: ...

    def write(self, block: bytes | memoryview) -> None:
        """Take the next bytes of the tar stream, with which the layer's data file begins."""

    def begin_expanded(self) -> ExpandedSink:
        """Begin the content of a sparse file; the tar stream has only its extents."""

    def set_blob(self, blob: Digest) -> None:
        """Take the digest of the blob whose spans come next."""

    def add_span(self, start: int, size: int, *, at: int, stored: int, inner: int, digest: Digest) -> None:
        """Take a span of the tar stream (spans.py). In order; called once the layer has proved to be right."""

    def add_restart(self, at: int, bits: int, window: bytes) -> None:
        """Take what inflating needs that begins at byte *at* of the blob."""
