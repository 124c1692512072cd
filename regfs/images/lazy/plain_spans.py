"""Unpacks the spans of a plain layer: whole zstd frames, gzip from a checkpoint on, or the archive itself.

Each is verified against the digest of its bytes in the archive, which was taken when the whole layer was verified.
Used by images/layers/plain_parts.py. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from regfs.errors import BadLayer
from regfs.layers.formats.format import Chunk
from regfs.layers.formats.gzip_member import verified

_BLOCK_SIZE = 1 << 20
_WINDOW = 1 << 15

FindRestart = Callable[[int], tuple[int, bytes] | None]
"""Returns the bits and the compressed window to begin inflating with at a byte of a gzip blob; None for other blobs."""


def unpack_spans(find_restart: FindRestart, chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
    """Return the bytes of *chunks*, which begin at the first byte of *stored*, without wrong ones."""
    plain = {chunk: stored[: chunk.size] for chunk in chunks if chunk.stored == chunk.size and not chunk.inner}
    right = {chunk: content for chunk, content in plain.items() if chunk.digest and chunk.digest.matches(content)}
    if len(right) == len(chunks):
        return right
    restart = find_restart(chunks[0].at)
    if restart is not None:
        return verified(chunks, iter([_inflated(restart, chunks, stored)]))
    from regfs.layers.compression import zstd

    return verified(chunks, zstd.decompress(iter([stored]), block_size=_BLOCK_SIZE))


def _inflated(restart: tuple[int, bytes], chunks: Sequence[Chunk], stored: bytes) -> bytes:
    """Return what *stored* inflates to up to the last byte of *chunks*; nothing where it is broken."""
    from regfs.layers.formats.soci import inflate_span

    bits, window = restart
    size = max(chunk.inner + chunk.size for chunk in chunks)
    try:
        return inflate_span(stored, bits=bits, window=zlib.decompressobj().decompress(window, _WINDOW), size=size)
    except BadLayer:
        return b""
