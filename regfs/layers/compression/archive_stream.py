"""The tar stream of a layer, decompressed into memory that the reader owns.

gzip that isal can read is inflated in place, by the reader behind its IGzipFile: it takes members one after the other
without coming back to the interpreter (eStargz has one for each file), and allocates nothing. Everything else comes in
blocks (detection.py) that are copied. Both give the same bytes and refuse the same streams; tests hold one against
the other. Used by ingest.py; one thread.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Protocol

from regfs.errors import BadLayer, Unsupported
from regfs.layers.compression import gzip
from regfs.layers.compression.detection import Chunk, Seek, decompressed, is_compressed, seek_nowhere
from regfs.layers.spans import AllSpans

_BLOCK_SIZE = 1 << 20
_READ = 1 << 19
_FIRST = 6
# Put behind the last byte, so that the reader always ends at an invalid header: then it has come to a member's end,
# and in any other error it has not.
_SENTINEL = b"\xff" * 16
_NO_HEADER = "Not a gzipped file"
_OTHER_METHOD = "Unknown compression method"


class ArchiveStream(Protocol):
    """A tar stream."""

    def readinto(self, view: memoryview) -> int:
        """Fill *view* and return its size; less only where the stream ends. Raises BadLayer, TooLarge."""


def open_archive(chunks: Iterable[Chunk], *, seek: Seek = seek_nowhere) -> ArchiveStream:
    """Return the tar stream that the compressed *chunks* are; *seek* is called at the end of each zstd frame.

    Raises BadLayer, TooLarge, Unsupported."""
    source = iter(chunks)
    first = b""
    while len(first) < _FIRST and (chunk := next(source, b"")):
        first += chunk
    whole: Iterator[Chunk] = chain([first], source) if first else source
    if first.startswith(gzip.MAGIC_AND_METHOD) and _Reader is not None:
        return _InPlaceGzip(whole)
    return _Copied(decompressed(whole, block_size=_BLOCK_SIZE, seek=seek))


def open_seekable(chunks: Iterable[Chunk], spans: AllSpans) -> ArchiveStream:
    """Return the tar stream that the compressed *chunks* are, as open_archive() does; note in *spans* where to seek.

    gzip takes some three times as long, since zlib alone finds checkpoints.
    """
    source = iter(chunks)
    first = b""
    while len(first) < _FIRST and (chunk := next(source, b"")):
        first += chunk
    whole: Iterator[Chunk] = chain([first], source) if first else source
    if first.startswith(gzip.MAGIC):
        with suppress(Unsupported):
            return _Copied(_checkpointed(whole, spans))
    spans.is_compressed = is_compressed(first)
    return _Copied(decompressed(whole, block_size=_BLOCK_SIZE, seek=spans.seek))


def _checkpointed(chunks: Iterator[Chunk], spans: AllSpans) -> Iterator[bytes]:
    from regfs.layers.compression.checkpoints import Checkpoint, CheckpointedGzip, require_library

    require_library()

    def note(point: Checkpoint) -> None:
        spans.seek(point.at, point.out, bits=point.bits, window=point.window)

    return CheckpointedGzip(note=note).inflate(map(bytes, chunks))


def _library() -> tuple[Any, tuple[type[Exception], ...]]:
    """Return isal's reader of gzip files and its errors; None where isal is not installed."""
    try:
        igzip, library = importlib.import_module("isal.igzip"), importlib.import_module("isal.isal_zlib")
        return igzip._GzipReader, (igzip.BadGzipFile, EOFError, OverflowError, library.error)
    except (ImportError, AttributeError):  # isal has no wheel for some machines
        return None, ()


_Reader, _ERRORS = _library()


class _Copied:
    """Copies blocks."""

    def __init__(self, blocks: Iterator[Chunk]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readinto(self, view: memoryview) -> int:
        """See ArchiveStream."""
        filled = 0
        while filled < len(view):
            if not self._rest:
                self._rest = memoryview(next(self._blocks, b""))
                if not self._rest:
                    break
            part = self._rest[: len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._rest = self._rest[len(part) :]
        return filled


class _InPlaceGzip:
    """Inflates gzip by isal's reader; the first header of *chunks* has been looked at."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._source = _Source(chunks)
        self._reader = _Reader(self._source, _READ)
        self._has_ended = False

    def readinto(self, view: memoryview) -> int:
        """See ArchiveStream."""
        if self._has_ended:
            return 0
        before = self._reader.tell()
        try:
            size: int = self._reader.readinto(view)
        except _ERRORS as error:
            if not self._is_end(str(error)):
                raise BadLayer(f"the gzip stream is broken or ends in the middle: {error}") from error
            self._has_ended = True
            size = self._reader.tell() - before  # what it had filled in until then
        return size

    def _is_end(self, error: str) -> bool:
        """Whether *error* is about bytes behind a whole member that are not a member: gzip(1) skips them."""
        if error.startswith(_NO_HEADER):
            return True
        # Two bytes of a header and nothing more are a member that was cut off.
        return error.startswith(_OTHER_METHOD) and not self._source.last.endswith(gzip.MAGIC)


class _Source:
    """The file that isal's reader reads: *chunks*, and a sentinel behind them."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._has_ended = False
        self.last = b""
        """The last two bytes before the sentinel."""

    def readinto(self, buffer: memoryview) -> int:
        """Copy the next bytes to the beginning of *buffer*; return how many, 0 at the end."""
        if not self._rest:
            self._rest = self._next()
        part = self._rest[: len(buffer)]
        memoryview(buffer)[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)

    def read(self, size: int = _READ) -> bytes:
        """Return the next bytes, *size* at most."""
        content = bytearray(size)
        return bytes(content[: self.readinto(memoryview(content))])

    def _next(self) -> memoryview:
        chunk = next(self._chunks, b"")
        if chunk:
            self.last = self.last[-1:] + bytes(chunk[-2:])
            return memoryview(chunk)
        if self._has_ended:
            return memoryview(b"")
        self._has_ended = True
        return memoryview(_SENTINEL)
