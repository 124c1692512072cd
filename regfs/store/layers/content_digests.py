"""The digests of whole files of one layer, as far as a comparison has needed them, so that no byte is read twice.

    layers/<diff id>.digests      beside the layer's index, with which it is evicted

    32 bytes           the sum of what follows (checksummed_files.py)
    u32, u32           the version of the layer's index, and how many there are; little-endian
    u64 × number       where the files' bytes begin in the data file, ascending
    32 bytes × number  the sha256 of each

A layer's bytes never change, so that a digest never becomes wrong. Of two processes that write at once, one keeps what
both knew before and what it found itself. Memory holds 40 bytes for each digest that is kept, and 150 for each that is
added. Used by images/comparing/. Thread rule: an object belongs to one thread.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

from regfs.store.eviction.budget import Budget
from regfs.store.files.checksummed_files import SUM, read_checksummed, write_checksummed
from regfs.store.layers.layer_index import VERSION

_HEAD = struct.Struct("<II")
_OFFSET = 8
_DIGEST = 32


class _Kept(NamedTuple):
    """The content of a file of digests: offsets, ascending, and the digests in their order."""

    offsets: memoryview[int] | array[int]
    digests: bytes | memoryview[int]


_NOTHING = _Kept(array("Q"), b"")


class ContentDigests:
    """The digests kept in the file at *path*, and those that are added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = read_digests(path) or _NOTHING
        self._added: dict[int, bytes] = {}

    def find(self, offset: int) -> bytes | None:
        """Return the sha256 of the file whose bytes begin at *offset* of the layer's data file; None if unknown."""
        added = self._added.get(offset)
        if added is not None:
            return added
        offsets, digests = self._kept
        at = bisect_left(offsets, offset)
        if at == len(offsets) or offsets[at] != offset:
            return None
        return bytes(digests[at * _DIGEST : (at + 1) * _DIGEST])

    def add(self, offset: int, digest: bytes) -> None:
        """Note the sha256 of the file at *offset*."""
        self._added[offset] = digest

    def keep(self, budget: Budget) -> None:
        """Write what was added. Raises CacheFailure."""
        if not self._added:
            return
        offsets, digests = read_digests(self._path) or _NOTHING
        every = {offset: bytes(digests[at * _DIGEST : (at + 1) * _DIGEST]) for at, offset in enumerate(offsets)}
        every |= self._added
        ordered = sorted(every)
        body = b"".join(
            (_HEAD.pack(VERSION, len(ordered)), array("Q", ordered).tobytes(), *(every[offset] for offset in ordered))
        )
        budget.reserve_document(len(body) + SUM)
        write_checksummed(self._path, body)
        self._kept, self._added = read_digests(self._path) or _NOTHING, {}


def read_digests(path: Path) -> _Kept | None:
    """Return what the file at *path* has; None if it is missing, torn or of another version."""
    content = read_checksummed(path)
    if content is None or len(content) < _HEAD.size:
        return None
    body = memoryview(content)
    version, number = _HEAD.unpack_from(body)
    if version != VERSION or len(body) != _HEAD.size + number * (_OFFSET + _DIGEST):
        return None
    split = _HEAD.size + number * _OFFSET
    return _Kept(body[_HEAD.size : split].cast("Q"), body[split:])
