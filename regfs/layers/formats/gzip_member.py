"""Unpacks and verifies the chunks of one compressed member.

Most members hold one chunk; eStargz can put many small files into one, told apart by their inner offsets. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from regfs.errors import BadLayer, TooLarge
from regfs.layers.formats.format import Chunk


def bytes_needed(chunks: Sequence[Chunk]) -> int:
    """Return how many bytes of their member *chunks* need, from its beginning on."""
    return max((chunk.inner + chunk.size for chunk in chunks), default=0)


def verified(chunks: Sequence[Chunk], blocks: Iterator[bytes]) -> dict[Chunk, bytes]:
    """Return the bytes of *chunks* within the stream *blocks*; chunks with a wrong digest are left out.

    No more of *blocks* is taken than the chunks need.
    """
    needed = bytes_needed(chunks)
    member: bytes | bytearray = b""
    # The chunks may lie before the break; their digests decide.
    with suppress(BadLayer, TooLarge):
        member = next(blocks, b"")
        if len(member) < needed:
            member = bytearray(member)
        while len(member) < needed and (block := next(blocks, b"")):
            member += block
    found: dict[Chunk, bytes] = {}
    for chunk in chunks:
        # The bytes themselves, not a copy, where the member holds this chunk alone.
        content = bytes(member if len(member) == chunk.size else memoryview(member)[chunk.inner :][: chunk.size])
        if len(content) == chunk.size and chunk.digest is not None and chunk.digest.matches(content):
            found[chunk] = content
    return found
