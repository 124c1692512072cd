"""gzip as layers use it: several members one after the other, any header fields, perhaps padded.

isal inflates at about four times the speed of zlib and is used where it can be imported. What follows the last member
and is no gzip header is passed over, as gzip(1) does. Source: RFC 1952. Used by compression.py; one thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, cast

from regfs.errors import BadLayer

MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31
# When a member ends, the decompressor copies what it was given beyond it: of thousands of tiny members in one chunk
# (eStargz has one for each file) each would copy all that follow. So the first bites of a member are small.
_FIRST_BITE = 1 << 13


class _Inflater(Protocol):
    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, chunk: bytes | memoryview, max_length: int, /) -> bytes: ...


def _library() -> tuple[Callable[..., _Inflater], type[Exception]]:
    """Return how to make a decompressor, and the error that it raises."""
    try:
        from isal import igzip_lib, isal_zlib
    except ImportError:  # there is no wheel of it for every machine
        return cast("Callable[..., _Inflater]", zlib.decompressobj), zlib.error
    return cast("Callable[..., _Inflater]", isal_zlib.decompressobj), cast("type[Exception]", igzip_lib.IsalError)


_decompressor, _ERROR = _library()


def inflate(chunks: Iterable[bytes], *, block_size: int) -> Iterator[bytes]:
    """Yield what *chunks* inflate to, in blocks of at most *block_size*. Raises BadLayer where they are no gzip."""
    inflater: _Inflater | None = None
    members = 0
    held = b""  # the start of a member that a chunk's end cut in two
    bite_size = _FIRST_BITE
    for chunk in chunks:
        view = memoryview(held + chunk if held else chunk)
        held = b""
        at = 0
        while at < len(view):
            if inflater is None:
                if len(view) - at < len(MAGIC):
                    held = bytes(view[at:])
                    break
                if view[at : at + 2] != MAGIC:
                    if members:
                        return
                    raise BadLayer("this is no gzip: its first bytes are wrong")
                inflater, bite_size = _decompressor(wbits=_GZIP_WBITS), _FIRST_BITE
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
    if inflater is not None or not members:
        raise BadLayer("the gzip stream ends in the middle")


def _decompress(inflater: _Inflater, bite: bytes | memoryview, block_size: int) -> bytes:
    try:
        return inflater.decompress(bite, block_size)
    except _ERROR as error:
        raise BadLayer(f"the gzip stream is broken: {error}") from error
