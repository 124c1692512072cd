"""Recognises the compression of a layer by its first bytes.

The media type says it too, but is wrong so often (`tar+gzip` on a layer that is not, Docker's only type for all) that
the engines look at the bytes. The media type only decides whether a layer can be read at all. Used by ingest.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from regfs.errors import Unsupported
from regfs.layers.compression import gzip

Chunk = bytes | memoryview
"""Some compressed bytes, not necessarily any."""

Seek = Callable[[int, int], None]
"""Called where decompressing can begin: with the offset in the blob, and that in the archive."""

_ENOUGH = 6
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}


def seek_nowhere(_at: int, _out: int) -> None:
    """Note nothing: a Seek for callers that read from start to end."""


def check_media_type(media_type: str) -> None:
    """Raise Unsupported for a media type that cannot be read: that of an encrypted layer."""
    if media_type.endswith("+encrypted"):
        raise Unsupported(f"the layer is encrypted ({media_type})")


def decompressed(chunks: Iterable[Chunk], *, block_size: int, seek: Seek = seek_nowhere) -> Iterator[Chunk]:
    """Yield the archive that *chunks* are, in blocks of at most *block_size* where they are compressed.

    *seek* is called at the end of each zstd frame. Raises BadLayer, TooLarge, Unsupported.
    """
    rest = iter(chunks)
    first = b""
    while len(first) < _ENOUGH and (chunk := next(rest, b"")):
        first += chunk
    whole = chain([first], rest) if first else rest
    if first.startswith(gzip.MAGIC):
        return gzip.inflate(whole, block_size=block_size)
    if _may_be_zstd(first):
        # Imported here because few layers need it, and an ingest must start fast.
        from regfs.layers.compression import zstd

        if zstd.starts_frame(first[:4]):
            return zstd.decompress(whole, block_size=block_size, seek=seek)
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise Unsupported(f"the layer is compressed with {name}; regfs reads gzip and zstd")
    return iter(whole)


def is_compressed(first: bytes) -> bool:
    """Tell whether decompressed() takes a layer that begins with *first* (6 bytes) for more than an archive."""
    from regfs.layers.compression import zstd

    return first.startswith((gzip.MAGIC, *_OTHERS)) or (_may_be_zstd(first) and zstd.starts_frame(first[:4]))


def _may_be_zstd(first: bytes) -> bool:
    return first[1:4] in (b"\xb5\x2f\xfd", b"\x2a\x4d\x18")
