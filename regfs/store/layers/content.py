"""The content of a regular file: where its bytes are in a data file, and an object that reads them.

A Content is a value that a merged tree returns; `LayerStore.open_content` (store/layers/layer_store.py) opens it. Every
file is a span of its layer's data file; a big one may have a copy of its own beside that, which the kernel reads by
itself (promotion.py).

Thread rule: an OpenContent may be read by any thread at once (pread keeps no position).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from regfs.errors import CacheFailure
from regfs.model.digest import Digest

BLOCK = 512
"""Every span begins at a multiple of this, so that the kernel's EROFS can take a data file as a device."""


class Nothing(NamedTuple):
    """An empty file. (These two are made at each open, and a tuple is made in a third of a dataclass's time.)"""

    size: int = 0


class Span(NamedTuple):
    """*size* bytes at *offset* of the data file of the layer with that diff id."""

    layer: Digest
    offset: int
    size: int


Content = Nothing | Span


def content_of(layer: Digest, content: int | None, size: int) -> Content:
    """Return the Content of a row of a layer's index: of its column *content* and the *size* in its attributes."""
    return Nothing() if content is None or size == 0 else Span(layer, content, size)


class SharedFile(Protocol):
    """An open file that several contents read from; a DataFile (data_files.py) is one."""

    def close_if_idle(self) -> bool:
        """Close the file once nothing reads from it; the next content opens it again."""


class OpenContent:
    """The bytes `[start, start + size)` of an open file."""

    __slots__ = ("_fd", "_shared", "_start", "keeps", "size")

    keep_cache = True  # these bytes never change, so that the kernel may keep them

    def __init__(self, fd: int, size: int, *, start: int = 0, shared: SharedFile | None = None) -> None:
        """Read from *fd*, which close() closes unless it is that of *shared*, an object that closes it."""
        self._fd = fd
        self._start = start
        self._shared = shared
        self.size = size
        # Keeps the tree of the file, and so its layers, in use while the file is open.
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
                raise self._cut_off(offset + len(content))
            content += more
        return content

    def read_into(self, buffer: bytearray) -> None:
        """Read all bytes to the beginning of *buffer*, which is large enough for them. Raises CacheFailure."""
        try:
            length = os.preadv(self._fd, [memoryview(buffer)[: self.size]], self._start)
        except OSError as error:
            raise CacheFailure(f"the cached file cannot be read: {error.strerror}") from error
        if length != self.size:
            raise self._cut_off(length)

    def backing_fd(self) -> int | None:
        """Return a descriptor of a file that holds exactly these bytes, valid until close(); None for a span."""
        return self._fd if self._shared is None and self._fd >= 0 else None

    def close(self) -> None:
        """Release the file; closing twice does no harm."""
        fd, self._fd = self._fd, -1
        self.size = 0
        if self._shared is None and fd >= 0:
            os.close(fd)
        self._shared = self.keeps = None

    def _cut_off(self, end: int) -> CacheFailure:
        """Return the error of a file that was cut off. The next open checks its length and makes the layer again."""
        if self._shared is not None:
            self._shared.close_if_idle()
        return CacheFailure(f"the cached file ends at byte {end}, not at {self.size}")

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, self._start + offset)
        except OSError as error:
            raise CacheFailure(f"the cached file cannot be read: {error.strerror}") from error


class Reading(Protocol):
    """Gets notice of opens and reads of a big file; promotion.py implements it."""

    def backing_wanted(self, span: Span) -> None: ...

    def read_on(self, span: Span) -> None: ...


class OpenBigContent(OpenContent):
    """A big span that may be promoted: *reading* gets notice where passthrough is possible, and of reads."""

    __slots__ = ("_has_told", "_reading", "_span", "_through")

    _MUCH = 1 << 20

    def __init__(self, fd: int, span: Span, *, shared: SharedFile, reading: Reading) -> None:
        super().__init__(fd, span.size, start=span.offset, shared=shared)
        self._span = span
        self._reading = reading
        self._through = 0
        self._has_told = True

    def backing_fd(self) -> int | None:
        """Return None: the content has no file of its own."""
        self._reading.backing_wanted(self._span)
        self._has_told = False
        return None

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes as OpenContent does; a file that is read in order from its beginning is worth promoting."""
        if not self._has_told and offset <= self._through:
            self._through = max(self._through, offset + size)
            if self._through > self._MUCH:
                self._has_told = True
                self._reading.read_on(self._span)
        return super().read_at(offset, size)


T = TypeVar("T")
# Bytes: what is read of a lazy layer in one go has to fit into the cache.
_AT_ONCE = 4 << 20
# Each read of the others may evict what this one reads.
_ATTEMPTS = 20
Pieces = Sequence[tuple[int, bytes]]
"""Stretches of a data file that could not be written there: each with its offset."""


class SparseFile(SharedFile, Protocol):
    """An open data file, parts of which may be evicted; a PartialData (chunks.py) is one. *evictions* counts that."""

    @property
    def fd(self) -> int: ...

    def evictions(self) -> int: ...


class OpenPartialContent(OpenContent):
    """A span of *data*, the data file of a layer that is fetched chunk by chunk.

    *ensure* fetches a range of *data* itself, and may wait. It returns the pieces that only memory holds. Bytes that
    were read while chunks of *data* were evicted may be gone, and are read again.
    *read_through* is called once as many bytes were read as the file has, if passthrough is possible.
    """

    __slots__ = ("_ensure", "_evictions", "_read_through", "_span", "_unread", "on_head")

    def __init__(
        self,
        span: Span,
        data: SparseFile,
        *,
        ensure: Callable[[int, int], Pieces],
        read_through: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(data.fd, span.size, start=span.offset, shared=data)
        self._span = span
        self._ensure = ensure
        self._evictions = data.evictions
        self._read_through = read_through
        self._unread = 0
        # Called once, with the span and its first bytes, as they are read.
        self.on_head: Callable[[Span, bytes], None] | None = None

    def backing_fd(self) -> int | None:
        """Return None: the content has no file of its own."""
        self._unread = self.size
        return None

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes as OpenContent does, fetched if they are missing. Raises the fetch's errors and WouldBlock."""
        size = min(size, self.size - offset)
        if size > _AT_ONCE:
            parts = range(offset, offset + size, _AT_ONCE)
            return b"".join(self.read_at(part, min(_AT_ONCE, offset + size - part)) for part in parts)
        if size <= 0:
            return b""
        content, pieces = self._read(offset, size, partial(super().read_at, offset, size))
        if pieces:
            laid = bytearray(content)
            _lay_over(laid, self._span.offset + offset, pieces)
            content = bytes(laid)
        else:
            self._count(len(content))
        if not offset and self.on_head is not None:
            on_head, self.on_head = self.on_head, None
            on_head(self._span, content)
        return content

    def _read(self, offset: int, size: int, read: Callable[[], T]) -> tuple[T, Pieces]:
        """Return what *read* returns once the bytes are there, and pieces that are not in the data file."""
        start = self._span.offset + offset
        for _ in range(_ATTEMPTS):
            evictions = self._evictions()
            pieces = self._ensure(start, start + size)
            content = read()
            if self._evictions() == evictions:
                return content, pieces
        raise CacheFailure(f"the cache is too small for what is read at once: {size} bytes were evicted meanwhile")

    def _count(self, size: int) -> None:
        if self._unread > 0 and self._read_through is not None:
            self._unread -= size
            if self._unread <= 0:
                self._read_through()

    def read_into(self, buffer: bytearray) -> None:
        """Read as OpenContent does; see read_at."""
        _, pieces = self._read(0, self.size, partial(super().read_into, buffer))
        _lay_over(memoryview(buffer)[: self.size], self._span.offset, pieces)


def _lay_over(buffer: bytearray | memoryview, start: int, pieces: Pieces) -> None:
    """Put *pieces* into *buffer*, which has the data file's bytes from *start* on."""
    for at, content in pieces:
        begin, end = max(at, start), min(at + len(content), start + len(buffer))
        if begin < end:
            buffer[begin - start : end - start] = content[begin - at : end - at]


def empty() -> OpenContent:
    """Return the open content of an empty file."""
    return OpenContent(-1, 0)
