"""GNU's four ways to store a file with holes: as a map of the extents that have data, and their bytes alone.

    old (type S)   four extents in the header, 21 in each following block; 24 bytes each: offset 12, size 12
    0.0, 0.1       extents in PAX records (pax.py makes 0.0 look like 0.1)
    1.0            extents as decimal lines before the data, padded to whole blocks

Source: GNU tar manual, "Storing Sparse Files". Maps are checked: in order, within the file, and as much data as there
is. Pure but for taking the map's own blocks from the feed.
"""

from __future__ import annotations

from collections.abc import Iterator

from regfs.errors import BadLayer, TooLarge
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.pax import SPARSE_MAP, Records
from regfs.layers.tar.tar_header import BLOCK, Header, decimal, number

Extents = list[tuple[int, int]]

MAX_EXTENTS = 1 << 17
_OLD_AT, _OLD_COUNT = 386, 4
_OLD_IS_EXTENDED, _OLD_REAL_SIZE = 482, slice(483, 495)
_NEXT_COUNT, _NEXT_IS_EXTENDED = 21, 504
_EXTENT = 24


def old_sparse(header: Header, feed: ByteFeed) -> tuple[int, Extents]:
    """Return the real size and the extents of an entry of type S, taking its further blocks. Raises BadLayer."""
    block = header.block
    extents = _extents_in(block, at=_OLD_AT, count=_OLD_COUNT)
    extended = block[_OLD_IS_EXTENDED]
    while extended:
        if len(extents) > MAX_EXTENTS:
            raise TooLarge(f"a sparse file has more than {MAX_EXTENTS} extents")
        block = feed.take(BLOCK)
        extents += _extents_in(block, at=0, count=_NEXT_COUNT)
        extended = block[_NEXT_IS_EXTENDED]
    return number(header.block[_OLD_REAL_SIZE]), extents


def _extents_in(block: bytes, *, at: int, count: int) -> Extents:
    extents = []
    for start in range(at, at + count * _EXTENT, _EXTENT):
        if not block[start]:
            break
        extents.append((number(block[start : start + 12]), number(block[start + 12 : start + 24])))
    return extents


def pax_sparse(records: Records, feed: ByteFeed, stored: int) -> tuple[int, Extents, int] | None:
    """Return real size, extents and how many of the *stored* bytes the map itself took; None where it is not sparse.

    Raises BadLayer, TooLarge.
    """
    if records.get(b"GNU.sparse.major") == b"1" and records.get(b"GNU.sparse.minor") == b"0":
        extents, taken = _map_before_data(feed, stored)
        return decimal(records.get(b"GNU.sparse.realsize", b"")), extents, taken
    if SPARSE_MAP not in records:
        return None
    numbers = records[SPARSE_MAP].split(b",") if records[SPARSE_MAP] else []
    if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
        raise BadLayer("a sparse map has a wrong number of extents")
    flat = [decimal(each) for each in numbers]
    size = records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize", b"")
    return decimal(size), list(zip(flat[::2], flat[1::2], strict=True)), 0


def _map_before_data(feed: ByteFeed, stored: int) -> tuple[Extents, int]:
    """Take the map of format 1.0: a line with the number of extents, then for each its offset and its size."""
    lines = _lines(feed, stored)
    count, taken = next(lines)
    if count > MAX_EXTENTS:
        raise TooLarge(f"a sparse file has more than {MAX_EXTENTS} extents")
    extents = []
    for _ in range(count):
        offset, _ = next(lines)
        length, taken = next(lines)
        extents.append((offset, length))
    return extents, taken


def _lines(feed: ByteFeed, stored: int) -> Iterator[tuple[int, int]]:
    """Yield the number on each line, and how many bytes (whole blocks) were taken for it."""
    rest = b""
    taken = 0
    while True:
        line, newline, after = rest.partition(b"\n")
        if newline:
            rest = after
            yield decimal(line), taken
        elif len(rest) > BLOCK or taken + BLOCK > stored:
            raise BadLayer("the map of a sparse file is broken")
        else:
            rest += feed.take(BLOCK)
            taken += BLOCK


def check_extents(extents: Extents, *, size: int, stored: int) -> None:
    """Raise BadLayer unless *extents* lie in order within *size* bytes and *stored* bytes are what they hold."""
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise BadLayer("the extents of a sparse file overlap")
        end = offset + length
        total += length
    if end > size:
        raise BadLayer(f"a sparse file of {size} bytes has data at byte {end}")
    if total > stored:
        raise BadLayer(f"a sparse file has {total} bytes of data, and {stored} are stored")
