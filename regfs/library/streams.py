"""An open file of the tree as one of Python's raw streams; io.BufferedReader and io.TextIOWrapper do the rest.

Used by path.py. Thread rule: as for Python's own files: a read moves the position, so each thread opens its own.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from regfs.library.path_resolver import Files
from regfs.tree.node import OpenFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 128 * 1024


class RawFile(io.RawIOBase):
    """A raw stream of the *size* bytes of *file*."""

    def __init__(self, files: Files, file: OpenFile, *, size: int, name: str) -> None:
        super().__init__()
        self._files = files
        self._file = file
        self._size = size
        self._at = 0
        self.name = name

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into *buffer* and return how many bytes; 0 at the end. May block on the network."""
        self._insist_on_open()
        view = memoryview(buffer).cast("B")
        content = self._files.read(self._file, self._at, len(view))
        view[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to *offset* from the beginning, the position or the end; return the position."""
        self._insist_on_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}
        if whence not in base:
            raise ValueError(f"invalid whence: {whence}")
        if base[whence] + offset < 0:
            raise ValueError(f"negative seek position {base[whence] + offset}")
        self._at = base[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        self._insist_on_open()
        return self._at

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        if not self.closed:
            try:
                self._file.close()
            finally:
                super().close()

    def _insist_on_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
