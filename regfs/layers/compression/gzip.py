"""gzip as layers use it: several members one after the other, any header fields, perhaps padded.

isal inflates about four times as fast as zlib and is used where it can be imported. Zeros between members, and bytes
after the last member that are not a gzip header, are skipped, as gzip(1) does. Where isal has a reader of files,
archive_stream.py uses that; both read the same streams. Source: RFC 1952. Used by detection.py; one thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, cast

from regfs.errors import BadLayer

MAGIC = b"\x1f\x8b"

_GZIP_WBITS = 31
MAGIC_AND_METHOD = MAGIC + b"\x08"
_FIXED_HEADER = 10
_MAX_HEADER = 1 << 19
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT = 2, 4, 8, 16
# Headers are read here, and the decompressor sees this one: isal 1.9 loses its way in header fields that two chunks
# share.
_PLAIN_HEADER = MAGIC_AND_METHOD + bytes(6) + b"\xff"
# When a member ends, the decompressor copies the input after it: of thousands of tiny members in one chunk
# (eStargz has one for each file) each would copy all that follow. So the first bites of a member are small.
_FIRST_BITE = 1 << 13


class _Inflater(Protocol):
    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, chunk: bytes | memoryview, max_length: int, /) -> bytes: ...


def _library() -> tuple[Callable[..., _Inflater], type[Exception]]:
    """Return a function that makes a decompressor, and the error that the decompressor raises."""
    try:
        from isal import igzip_lib, isal_zlib
    except ImportError:  # there is no wheel of it for every machine
        return cast("Callable[..., _Inflater]", zlib.decompressobj), zlib.error
    return cast("Callable[..., _Inflater]", isal_zlib.decompressobj), cast("type[Exception]", igzip_lib.IsalError)


_decompressor, ERROR = _library()


def inflate(chunks: Iterable[bytes | memoryview], *, block_size: int, first_bite: int = _FIRST_BITE) -> Iterator[bytes]:
    """Yield what *chunks* inflate to, in blocks of at most *block_size*. Raises BadLayer where they are not gzip.

    *first_bite*: so many bytes of a member are inflated first; all of them where a chunk has one member only.
    """
    inflater: _Inflater | None = None
    members = 0
    held = b""  # the start of a member whose header goes on in the next chunk
    bite_size = _FIRST_BITE
    for chunk in chunks:
        view = memoryview(held + chunk if held else chunk)
        held = b""
        at = 0
        while at < len(view):
            if inflater is None:
                if members and not view[at]:  # padding, of a tape for example
                    at += 1
                    continue
                size = header_size(view[at:])
                if size is None:
                    held = bytes(view[at:])
                    break
                if size == 0:
                    if members:
                        return
                    raise BadLayer("this is not gzip: its first bytes are wrong")
                at += size
                inflater, bite_size = _decompressor(wbits=_GZIP_WBITS), first_bite
                _decompress(inflater, _PLAIN_HEADER, block_size)
                continue
            bite: bytes | memoryview = view[at : at + bite_size]
            at += len(bite)
            while True:
                block = _decompress(inflater, bite, block_size)
                if block:
                    yield block
                bite = inflater.unconsumed_tail
                if inflater.eof or (not bite and len(block) < block_size):
                    break
            if inflater.eof:
                at -= len(inflater.unused_data)
                inflater = None
                members += 1
            else:
                bite_size *= 2
    if inflater is not None or not members or len(held) >= len(MAGIC):
        raise BadLayer("the gzip stream ends in the middle")


def raw_inflater(window: bytes = b"") -> _Inflater:
    """Return a decompressor of a deflate stream without a header, in which *window* came before. Raises ERROR."""
    if window:
        return _decompressor(wbits=-zlib.MAX_WBITS, zdict=window)
    return _decompressor(wbits=-zlib.MAX_WBITS)


def header_size(view: memoryview) -> int | None:
    """Return the size of the member's header that *view* begins with, 0 if it is not one, None if it goes on."""
    fixed = bytes(view[:_FIXED_HEADER])
    if not fixed.startswith(MAGIC_AND_METHOD[: len(fixed)]):
        return 0
    if len(fixed) < _FIXED_HEADER:
        return None
    flags = fixed[3]
    size = _FIXED_HEADER
    if flags & _HAS_EXTRA:
        if len(view) < size + 2:
            return None
        size += 2 + int.from_bytes(view[size : size + 2], "little")
    header = bytes(view[:_MAX_HEADER]) if flags & (_HAS_NAME | _HAS_COMMENT) else b""
    for has_text in (_HAS_NAME, _HAS_COMMENT):
        if flags & has_text:
            end = header.find(b"\0", size)
            if end < 0:
                if len(view) >= _MAX_HEADER:
                    raise BadLayer(f"a gzip header of more than {_MAX_HEADER} bytes")
                return None
            size = end + 1
    if not flags & _HAS_CHECKSUM:
        return size if size <= len(view) else None
    if size + 2 > len(view):
        return None
    if zlib.crc32(view[:size]) & 0xFFFF != int.from_bytes(view[size : size + 2], "little"):
        raise BadLayer("the gzip stream is broken: the checksum of a header is wrong")
    return size + 2


def _decompress(inflater: _Inflater, bite: bytes | memoryview, block_size: int) -> bytes:
    try:
        return inflater.decompress(bite, block_size)
    except ERROR as error:
        raise BadLayer(f"the gzip stream is broken: {error}") from error
