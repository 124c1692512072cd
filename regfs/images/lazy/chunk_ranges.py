"""Finds the byte ranges of a layer's blob that hold given chunks, and cuts chunks out of a stream of the blob.

Used by chunk_requests.py and chunk_fetching.py. Pure; a Window belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from regfs.store.layers.chunks import StoredChunk

MAX_GAP = 1 << 16
"""Up to so many bytes between two chunks are fetched with them, to save a request: 5 ms at 100 Mbit/s."""
MAX_RANGE = 8 << 20


class Group(NamedTuple):
    """Chunks that one request fetches."""

    chunks: tuple[StoredChunk, ...]

    @property
    def start(self) -> int:
        return min(chunk.at for chunk in self.chunks)

    @property
    def stop(self) -> int:
        return max(chunk.at + chunk.stored for chunk in self.chunks)


class Window:
    """Takes pieces out of a stream, in the stream's order. Holds one piece and one block in memory."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._held = bytearray()
        self._at = 0

    def take(self, at: int, size: int) -> bytes:
        """Return the *size* bytes at offset *at*; fewer where the stream ends. Offsets never decrease."""
        while self._at + len(self._held) < at + size and (block := next(self._blocks, b"")):
            self._held += block
            self._drop(at)
        self._drop(at)
        return bytes(self._held[at - self._at : at - self._at + size])

    def _drop(self, at: int) -> None:
        unneeded = min(at - self._at, len(self._held))
        del self._held[:unneeded]
        self._at += unneeded


def merged(chunks: Sequence[StoredChunk], *, max_gap: int = MAX_GAP, max_range: int = MAX_RANGE) -> list[Group]:
    """Group *chunks* into few ranges: chunks near each other together, chunks of one member always together."""
    groups: list[list[StoredChunk]] = []
    start = stop = -1
    for chunk in sorted(chunks, key=blob_order):
        end = chunk.at + chunk.stored
        is_same = bool(groups) and groups[-1][-1].at == chunk.at
        if is_same or (groups and chunk.at - stop <= max_gap and end - start <= max_range):
            groups[-1].append(chunk)
            stop = max(stop, end)
        else:
            groups.append([chunk])
            start, stop = chunk.at, end
    return [Group(tuple(group)) for group in groups]


def blob_order(chunk: StoredChunk) -> tuple[int, int]:
    """Return the sort key for the order of chunks in the blob."""
    return chunk.at, chunk.inner
