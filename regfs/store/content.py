"""Where the bytes of a regular file are, and reading them.

A Content is a value that a merged tree gives out; `LayerStore.open_content` (store/layer_store.py) opens it. Objects
are files of their own, named by their sha256; what is smaller lies in its layer's pack, one file after the other.

Thread rule: an OpenContent may be read by any thread at once (pread keeps no position).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from regfs.errors import CacheFailure
from regfs.model.digest import Digest
from regfs.store.packs import Pack


class Nothing(NamedTuple):
    """An empty file. (These three are made at each open, and a tuple is made in a third of a dataclass's time.)"""

    size: int = 0


class Packed(NamedTuple):
    """*size* bytes at *offset* of the pack of the layer with that diff id."""

    layer: Digest
    offset: int
    size: int


class Object(NamedTuple):
    """A file of its own, named by the hexadecimal sha256 of its bytes. *layer* is one that it is a file of."""

    sha256: str
    size: int
    layer: Digest | None = None


Content = Nothing | Packed | Object


def content_of(layer: Digest, content: int | bytes | None, size: int) -> Content:
    """Return where a row's bytes are: *content* as a layer's index keeps it, *size* from the row's attributes."""
    if content is None or size == 0:
        return Nothing()
    if isinstance(content, int):
        return Packed(layer, content, size)
    return Object(content.hex(), size, layer)


class OpenContent:
    """The bytes `[start, start + size)` of an open file."""

    __slots__ = ("_fd", "_pack", "_start", "keeps", "size")

    keep_cache = True  # these bytes never change, and who has read them may keep them

    def __init__(self, fd: int, size: int, *, start: int = 0, pack: Pack | None = None) -> None:
        """Read from *fd*, which close() closes unless it is that of *pack*."""
        self._fd = fd
        self._start = start
        self._pack = pack
        self.size = size
        # What must not be let go while the file is open: the tree that it is in, whose layers are in use then.
        self.keeps: object = None

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly *size* bytes from *offset*, fewer only where the file ends. Raises CacheFailure."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        content = self._pread(offset, size)
        if len(content) == size:
            return content
        while len(content) < size:
            more = self._pread(offset + len(content), size - len(content))
            if not more:
                raise CacheFailure(f"the cached file ends at byte {offset + len(content)}, not at {self.size}")
            content += more
        return content

    def read_into(self, buffer: bytearray) -> None:
        """Read all bytes to the beginning of *buffer*, which is large enough for them. Raises CacheFailure."""
        try:
            length = os.preadv(self._fd, [memoryview(buffer)[: self.size]], self._start)
        except OSError as error:
            raise CacheFailure(f"the cached file cannot be read: {error.strerror}") from error
        if length != self.size:
            raise CacheFailure(f"the cached file ends at byte {length}, not at {self.size}")

    def backing_fd(self) -> int | None:
        """Return a descriptor of a file that holds exactly these bytes, valid until close(); None for packed ones."""
        return self._fd if self._pack is None and self._fd >= 0 else None

    def close(self) -> None:
        """Let go of the file; closing twice does no harm."""
        fd, self._fd = self._fd, -1
        self.size = 0
        if self._pack is None and fd >= 0:
            os.close(fd)
        self._pack = self.keeps = None

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, self._start + offset)
        except OSError as error:
            raise CacheFailure(f"the cached file cannot be read: {error.strerror}") from error


def empty() -> OpenContent:
    """Return the opened form of Nothing."""
    return OpenContent(-1, 0)
