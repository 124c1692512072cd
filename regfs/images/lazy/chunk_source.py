"""The interfaces to a lazy layer: the table of its chunks, and its bytes in the registry.

Used by chunk_requests.py; made by partial_layers.py. Thread rule: any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from regfs.layers.formats.format import Chunk
from regfs.store.layers.chunks import StoredChunk


class ChunkTable(Protocol):
    """The chunks of one layer by their offset in the data file; the layer's index has them."""

    def chunks_between(self, start: int, stop: int) -> list[StoredChunk]:
        """Return the chunks that have bytes of `[start, stop)`, in order."""

    def chunks_by_place(self) -> Iterator[StoredChunk]:
        """Yield all chunks in the order of the blob."""

    def bytes_of_chunks(self) -> int:
        """Return how many bytes all chunks have together."""

    def sizes_of_chunks(self) -> Iterator[tuple[int, int]]:
        """Yield number and size of each chunk."""


class LayerBytes(NamedTuple):
    """A layer's bytes. *part* returns those of `[start, stop)`, *whole* yields all; both may wait.

    *unpack* returns the verified chunks of one member from its stored bytes (Format.read). *what* names the layer in
    messages.
    """

    what: str
    part: Callable[[int, int], bytes]
    whole: Callable[[], Iterator[bytes]]
    unpack: Callable[[Sequence[Chunk], bytes], dict[Chunk, bytes]]
