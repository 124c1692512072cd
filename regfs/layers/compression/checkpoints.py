"""Where inflating a gzip layer can begin: found while it is inflated, once.

    stream = CheckpointedGzip(span_size=4 << 20)
    for block in stream.inflate(chunks): …
    stream.checkpoints, stream.span_digests

Uses zlib by ctypes: no Python module can stop inflate() at the end of a deflate block, which checkpoints need.
A checkpoint is made at the first block, and at each that begins more than `span_size` bytes of the archive after the
last checkpoint, as soci-snapshotter makes them. A span is what is between two checkpoints; it may go on in another gzip
member, which soci-snapshotter reads since 2026. ztoc.py tells which bytes a span is. Memory: 32 KiB a checkpoint.
Source: zlib.h, inflate(), Z_BLOCK; soci-snapshotter, ztoc/compression/gzip_zinfo.c. One thread.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from regfs.errors import BadLayer, Unsupported

SPAN_SIZE = 4 << 20
WINDOW = 1 << 15

_OUT = 1 << 18
_GZIP_WBITS = 31
_Z_BLOCK, _Z_OK, _Z_STREAM_END, _Z_BUF_ERROR = 5, 0, 1, -5
_END_OF_BLOCK, _LAST_BLOCK, _BITS = 128, 64, 7


class Checkpoint(NamedTuple):
    """A place of the blob (*at*, *bits*) and of the archive (*out*); *window* is the 32 KiB before that."""

    at: int
    out: int
    bits: int
    window: bytes


class _Stream(ctypes.Structure):
    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


class CheckpointedGzip:
    """One gzip file, and its checkpoints."""

    def __init__(self, *, span_size: int = SPAN_SIZE, note: Callable[[Checkpoint], None] | None = None) -> None:
        """*note* is called with each checkpoint before the bytes behind it are yielded."""
        self.checkpoints: list[Checkpoint] = []
        self._note = note
        self.span_digests: list[str] = []
        """Hexadecimal; complete when inflate() has ended."""
        self.received = 0
        self.inflated = 0
        self._span_size = span_size
        self._hasher = hashlib.sha256()
        self._last_byte = b""
        self._out = ctypes.create_string_buffer(_OUT)
        self._filled = 0
        self._before = bytes(WINDOW)
        self._in_header = True
        self._is_between = False
        self._members = 0

    def inflate(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what *chunks* inflate to. Zeros between members, and bytes behind the last one, are skipped.

        Raises BadLayer where they are not gzip, Unsupported where the machine has no zlib.
        """
        library = _library()
        stream = _Stream()
        if library.inflateInit2_(ctypes.byref(stream), _GZIP_WBITS, b"1.2.11", ctypes.sizeof(stream)) != _Z_OK:
            raise Unsupported("the machine's zlib cannot be used")
        try:
            for chunk in chunks:
                yield from self._inflated(library, stream, chunk)
        finally:
            library.inflateEnd(ctypes.byref(stream))
        if self._filled:
            yield self._flush()
        if not self._members or not self._in_header:
            raise BadLayer("the gzip stream ends in the middle")
        self.span_digests.append(self._hasher.hexdigest())

    def _inflated(self, library: ctypes.CDLL, stream: _Stream, chunk: bytes) -> Iterator[bytes]:
        """Yield the blocks that are full with *chunk*, and note the checkpoints in it."""
        view = memoryview(chunk)
        stream.next_in = ctypes.cast(ctypes.c_char_p(chunk), ctypes.c_void_p)
        stream.avail_in = len(chunk)
        while stream.avail_in or self._filled == _OUT:
            if self._filled == _OUT:
                yield self._flush()
            at = len(chunk) - stream.avail_in
            if self._is_between and not view[at]:  # padding between members, as gzip.py skips it
                zeros = len(chunk) - at - len(chunk[at:].lstrip(b"\0"))
                self._take(view[at : at + zeros])
                stream.next_in += zeros
                stream.avail_in -= zeros
                continue
            self._is_between = False
            stream.next_out = ctypes.addressof(self._out) + self._filled
            stream.avail_out = _OUT - self._filled
            result = library.inflate(ctypes.byref(stream), _Z_BLOCK)
            self.inflated += _OUT - stream.avail_out - self._filled
            self._filled = _OUT - stream.avail_out
            if result not in (_Z_OK, _Z_STREAM_END, _Z_BUF_ERROR):
                if not self._members or not self._in_header:
                    raise BadLayer(f"the gzip stream is broken: {(stream.msg or b'').decode('latin-1')}")
                self._take(view[at:])
                return
            self._take(view[at : len(chunk) - stream.avail_in])
            if result == _Z_STREAM_END:
                self._members, self._in_header, self._is_between = self._members + 1, True, True
                library.inflateReset(ctypes.byref(stream))
            elif stream.data_type & _END_OF_BLOCK and not stream.data_type & _LAST_BLOCK:
                self._at_block(stream.data_type & _BITS)

    def _at_block(self, bits: int) -> None:
        """Note a checkpoint where one is due; a block begins within *bits* bits of the byte that was taken last."""
        self._in_header = False
        if self.checkpoints:
            if self.inflated - self.checkpoints[-1].out <= self._span_size:
                return
            self.span_digests.append(self._hasher.hexdigest())
        self._hasher = hashlib.sha256(self._last_byte if bits else b"")
        window = (self._before + ctypes.string_at(self._out, self._filled))[-WINDOW:]
        point = Checkpoint(self.received, self.inflated, bits, window)
        if self._note is None:
            self.checkpoints.append(point)
        else:  # which keeps it: memory must not hold all windows
            self._note(point)
            self.checkpoints = [point]

    def _take(self, taken: memoryview) -> None:
        if taken:
            self._hasher.update(taken)
            self.received += len(taken)
            self._last_byte = bytes(taken[-1:])

    def _flush(self) -> bytes:
        block = ctypes.string_at(self._out, self._filled)
        self._before = (self._before + block)[-WINDOW:]
        self._filled = 0
        return block


def require_library() -> None:
    """Raise Unsupported where the machine has no zlib."""
    _library()


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Return zlib. Raises Unsupported."""
    try:
        return ctypes.CDLL("libz.so.1")
    except OSError as error:
        raise Unsupported(f"to make an index needs the machine's zlib (libz.so.1): {error}") from None
