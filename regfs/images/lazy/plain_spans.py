"""Unpacks the spans of a plain layer: whole zstd frames.

Each is verified against the digest of its bytes in the archive, which was taken when the whole layer was verified.
Used by images/layers/plain_parts.py. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from regfs.layers.formats.format import Chunk
from regfs.layers.formats.gzip_member import verified

_BLOCK_SIZE = 1 << 20


def unpack_spans(chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
    """Return the bytes of *chunks*, which begin at the first byte of *stored*, without wrong ones."""
    from regfs.layers.compression import zstd

    return verified(chunks, zstd.decompress(iter([stored]), block_size=_BLOCK_SIZE))
