"""Unpacks and verifies the chunks of one compressed member.

Most members hold one chunk; eStargz can put many small files into one, told apart by their inner offsets. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from regfs.errors import BadLayer, TooLarge
from regfs.layers.formats.format import Chunk


def verified(chunks: Sequence[Chunk], blocks: Iterator[bytes]) -> dict[Chunk, bytes]:
    """Return the bytes of *chunks* within the stream *blocks*; chunks with a wrong digest are left out.

    No more of *blocks* is taken than the chunks need.
    """
    needed = max((chunk.inner + chunk.size for chunk in chunks), default=0)
    member = bytearray()
    # The chunks may lie before the break; their digests decide.
    with suppress(BadLayer, TooLarge):
        while len(member) < needed:
            block = next(blocks, b"")
            if not block:
                break
            member += block
    found: dict[Chunk, bytes] = {}
    for chunk in chunks:
        content = bytes(memoryview(member)[chunk.inner : chunk.inner + chunk.size])
        if len(content) == chunk.size and chunk.digest is not None and chunk.digest.matches(content):
            found[chunk] = content
    return found
