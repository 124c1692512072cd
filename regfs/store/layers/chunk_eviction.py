"""Evicts chunks of a layer while it is in use, so that an image larger than the cache can be read.

    a lazy layer                          chunks of its data file
    a plain layer that was evicted        what was fetched again of it (chunks.py, parts)

The data file is looked at in regions, from where the last eviction ended. A region that was used since then gets a
second chance; the chunks of another one are marked absent, and its bytes freed. chunk_map.py tells how readers notice.
Used by eviction.py. Thread rule: any thread and process; one at a time evicts from a layer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import RegfsError
from regfs.process.syscalls import punch_hole
from regfs.store.eviction.inventory import CHUNKS, DATA, PARTS
from regfs.store.layers.chunk_map import LockedMap
from regfs.store.layers.chunks import StoredChunk
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.span_table import SpanTable

_REGION = 256 << 10
_BLOCK = 4096
_ROUNDS = 2
_SECTOR = 512
"""What st_blocks counts, whatever the blocks of the file system are."""


class _Range(NamedTuple):
    start: int
    stop: int


def evict_chunks(index: Path, wanted: int, *, may_begin: Callable[[], bool]) -> int:
    """Evict about *wanted* bytes of the layer of *index*, those used longest ago first; return the bytes freed.

    *may_begin* is asked when no chunk can be marked any more: whether no process needs all of the layer. Frees nothing
    where the file system cannot free parts of files, or has no locks. Raises OSError.
    """
    with ExitStack() as stack, suppress(RegfsError):  # of a damaged index, which its next reader drops
        table = LayerIndex.open(index)
        stack.callback(table.close)
        size = table.layout().size
        try:
            if index.with_suffix(CHUNKS).exists():
                data, chunks = (
                    _open(index.with_suffix(DATA), stack),
                    LockedMap(_open(index.with_suffix(CHUNKS), stack), 0),
                )
            else:
                data = _open(index.with_suffix(PARTS), stack)
                # The parts may be of other spans than those in this index.
                chunks = LockedMap(data, size, table=SpanTable.of(table).id)
        except FileNotFoundError:
            return 0
        end = os.fstat(data).st_size
        last = size if end > size else size + _BLOCK  # a map may follow
        if not chunks.is_locked or not may_begin() or not _free(data, _Range(end, end + _BLOCK)):
            return 0
        before = os.fstat(data).st_blocks
        ranges = _choose(table, chunks, data, wanted)
        chunks.write_evicted()
        for start, stop in ranges:
            low, high = _widened(start, stop, table, chunks)
            _free(data, _Range(low, min(high, last)))
        chunks.restore_time()
        return (before - os.fstat(data).st_blocks) * _SECTOR
    return 0


def _open(path: Path, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    stack.callback(os.close, fd)
    return fd


def _choose(table: LayerIndex, chunks: LockedMap, data: int, wanted: int) -> list[_Range]:
    """Mark chunks of about *wanted* bytes as absent, and return where they are."""
    chosen: list[_Range] = []
    found = 0
    for region in _regions(table, data, chunks.hand):
        if found >= wanted:
            break
        chunks.hand = region[-1].stop
        here = [chunk for chunk in region if chunks.is_kept(chunk.number)]
        if here and not chunks.take_use(chunk.number for chunk in here):
            found += sum(chunk.size for chunk in here)
            chosen.append(_Range(here[0].start, here[-1].stop))
            chunks.forget(chunk.number for chunk in here)
        elif not here:  # an eviction that was killed has left bytes
            chosen.append(_Range(region[0].start, region[-1].stop))
    return chosen


def _regions(table: LayerIndex, data: int, hand: int) -> Iterator[list[StoredChunk]]:
    """Yield the chunks of each region that has bytes, from *hand* on round the file, twice."""
    size = table.layout().size
    for start, stop in [(hand, size), *[(0, size)] * (_ROUNDS - 1), (0, hand)]:
        at = start
        while at < stop:
            try:
                at = max(at, os.lseek(data, at, os.SEEK_DATA) // _REGION * _REGION)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            found = table.chunks_between(at, at + _REGION)
            region = [chunk for chunk in found if at <= chunk.start < stop]
            if region:
                yield region
            at = max(at + _REGION, region[-1].stop if region else 0)


def _widened(start: int, stop: int, table: LayerIndex, chunks: LockedMap) -> _Range:
    """Return the range with the rest of its first and last block, where nothing else is kept in these."""
    low, high = start - start % _BLOCK, stop + -stop % _BLOCK
    if any(chunks.is_kept(chunk.number) for chunk in table.chunks_between(low, start)):
        low = start
    if any(chunks.is_kept(chunk.number) for chunk in table.chunks_between(stop, high)):
        high = stop
    return _Range(low, high)


def _free(data: int, freed: _Range) -> bool:
    """Free the bytes; return False where the file system cannot. Raises OSError."""
    try:
        punch_hole(data, freed.start, freed.stop - freed.start)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True
