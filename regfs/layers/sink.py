"""Where a pass puts what it finds: the seam between layers/ and whoever keeps it (store/layer_writer.py).

One thread calls a sink. Its methods may raise CacheFailure; what was put is visible to nobody before the pass is over
and both digests were found right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from regfs.model.layer_entry import Row


class RowSink(Protocol):
    """Takes the rows of a layer's index. A row that is added again takes the place of the former one."""

    def add(self, row: Row) -> None: ...

    def remove(self, rows: Iterable[int]) -> None: ...

    def rename(self, rows: Iterable[tuple[int, int, bytes]]) -> None: ...

    def add_flags(self, rows: Iterable[int], flags: int) -> None: ...

    def set_nlinks(self, nlinks: Iterable[tuple[int, int]]) -> None: ...


class ObjectSink(Protocol):
    """Takes the content of one big file."""

    def write(self, view: memoryview) -> None:
        """Take the next bytes; *view* is not kept."""

    def skip(self, size: int) -> None:
        """Take *size* zero bytes."""

    def finish(self) -> bytes:
        """Return the sha256 (32 bytes) of all that was taken."""


class LayerSink(Protocol):
    """Takes a layer."""

    @property
    def rows(self) -> RowSink: ...

    def pack(self, content: bytes) -> int:
        """Take the content of a small file; return its offset in the layer's pack."""

    def begin_object(self) -> ObjectSink: ...
