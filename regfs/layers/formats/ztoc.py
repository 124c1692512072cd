"""zTOC: the table of contents that SOCI keeps beside a gzip layer, with checkpoints to inflate from.

A FlatBuffer; numbers of fields are those of the schema:

    Ztoc             0 version "0.9", 1 build tool, 2 size of the blob (i64), 3 size of the archive (i64), 4 TOC,
                     5 CompressionInfo
    TOC              0 [FileMetadata], in the order of the archive
    FileMetadata     0 name, 1 type, 2 offset of the file's data in the archive, 3 size (i64), 4 link name,
                     5 mode (i64), 6 uid, 7 gid (u32), 8 user, 9 group, 10 time (RFC 3339), 11 major, 12 minor (i64),
                     13 [Xattr]
    Xattr            0 key, 1 value: a PAX record, whatever its name says
    CompressionInfo  0 algorithm (byte: 1 gzip, the default; 2 none), 1 number of spans - 1 (i32), 2 [span digest],
                     3 checkpoints (bytes)

    checkpoints      i32 count, i64 span size, then for each span: i64 in, i64 out, u8 bits, 32,768 bytes of window

Span i inflates to the archive from its `out` on. Its first bit is in the blob's byte `in`; where `bits` is not 0, the
highest `bits` bits of the byte before belong to it too. The window is the 32 KiB of the archive before it. Span i ends
where the next one begins, the last one with the blob; its digest is of exactly these bytes of the blob, so that two
neighbours may share one. The first version of the format leaves out checkpoint 0, which is at byte 10 then. Source:
soci-snapshotter, ztoc/fbs/ztoc.fbs, ztoc/compression/gzip_zinfo.{h,c}. Used by soci.py. Pure; one thread.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from regfs.errors import BadLayer, InvalidName, TooLarge, Unsupported
from regfs.layers.formats.flatbuffer import FlatBuffer, Table
from regfs.layers.formats.format import MAX_MEMBER
from regfs.layers.tar.pax import xattrs_of
from regfs.layers.tar.tar_header import BLOCK
from regfs.layers.tar.tar_reader import HARD_LINK, MAX_FILE_SIZE, TarEntry, owner_of
from regfs.model.attributes import device_number
from regfs.model.dates import exact_date_ns
from regfs.model.digest import Digest
from regfs.model.node_id import MAX_ROWS

VERSION = b"0.9"
WINDOW = 1 << 15
MAX_ZTOC = 64 << 20
"""Bytes of a zTOC, which is held in memory while it is read: enough for an archive of some 7 GB."""
CHECKPOINTS_HEADER = struct.Struct("<iq")
CHECKPOINT = struct.Struct("<qqB")
CHECKPOINT_SIZE = CHECKPOINT.size + WINDOW

TYPES = {
    b"dir": stat.S_IFDIR,
    b"reg": stat.S_IFREG,
    b"symlink": stat.S_IFLNK,
    b"hardlink": HARD_LINK,
    b"char": stat.S_IFCHR,
    b"block": stat.S_IFBLK,
    b"fifo": stat.S_IFIFO,
}
GZIP = 1
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_IMPLIED_START = 10
_NO_ID = (1 << 32) - 1


class Span(NamedTuple):
    """A piece of a layer that can be inflated alone: *size* bytes of the archive from *start* on.

    They are stored in the *stored* bytes of the blob from *at* on, which have *digest*; of the first of these bytes
    only the highest *bits* bits belong to the span, where that is not 0. *window* is the archive's 32 KiB before.
    """

    start: int
    size: int
    at: int
    stored: int
    digest: Digest
    bits: int
    window: bytes


class FileOffsets(NamedTuple):
    """Where a file is in the archive: its headers from *header* on, its bytes from *start* on."""

    header: int
    start: int


class Ztoc:
    """One zTOC."""

    def __init__(self, content: bytes) -> None:
        """*content* is verified. Raises BadLayer, TooLarge, Unsupported."""
        self._buffer = FlatBuffer(content)
        root = self._buffer.root()
        version = root.bytes(0)
        if version != VERSION:
            raise Unsupported(f"a zTOC of version {version[:40]!r}; regfs reads {VERSION.decode()}")
        self.blob_size, self.archive_size = root.i64(2), root.i64(3)
        self._files = root.table(4).references(0)
        if len(self._files) > MAX_ROWS:
            raise TooLarge(f"a zTOC of {len(self._files)} files; regfs reads up to {MAX_ROWS}")
        self.spans = _spans(self._buffer, root.table(5), self.blob_size, self.archive_size)

    def entries(self) -> Iterator[tuple[TarEntry, FileOffsets | None]]:
        """Yield the archive's entries, each with its offsets; None where the offsets are impossible.

        Raises BadLayer.
        """
        end = 0
        for at in self._files:
            file = self._buffer.table_at(self._buffer.target(at))
            entry = _entry(self._buffer, file)
            start = file.i64(2)
            is_there = end + BLOCK <= start and not start % BLOCK and start + entry.size <= self.archive_size
            yield entry, FileOffsets(end, start) if is_there else None
            if is_there:
                end = start + entry.size + -entry.size % BLOCK


def _entry(buffer: FlatBuffer, file: Table) -> TarEntry:
    """Return the tar entry that *file* describes. Raises BadLayer."""
    path, kind = file.bytes(0), TYPES.get(file.bytes(1))
    try:
        if kind is None:
            raise BadLayer(f"{file.bytes(1)[:40]!r} is not a type of a file")
        size = file.i64(3) if kind == stat.S_IFREG else 0
        if not 0 <= size <= MAX_FILE_SIZE:
            raise BadLayer(f"a size of {size} bytes")
        link = file.bytes(4)
        if b"\0" in path or b"\0" in link:
            raise BadLayer("a name with a NUL")
        records = {}
        for at in file.references(13):
            record = buffer.table_at(buffer.target(at))
            records[record.bytes(0)] = record.bytes(1)
        rdev = device_number(_unsigned(file.i64(11)), _unsigned(file.i64(12))) if kind in _DEVICES else 0
        return TarEntry(
            path, kind, file.i64(5) & 0o7777, _owner(file.u32(6)), _owner(file.u32(7)), size,
            _modified_ns(file.bytes(10)), link, rdev, xattrs_of(records) if records else None, None,
        )  # fmt: skip
    except BadLayer as error:
        raise BadLayer(f"the zTOC, {path[:200]!r}: {error}") from None


def _owner(value: int) -> int:
    return owner_of(-1 if value == _NO_ID else value)


def _unsigned(value: int) -> int:
    if value < 0:
        raise BadLayer(f"{value} is not part of a device's number")
    return value


# Few times make up an image.
@lru_cache(maxsize=4096)
def _modified_ns(text: bytes) -> int:
    found = exact_date_ns(text.decode("latin-1"))
    if found is None:
        raise BadLayer(f"{text[:40]!r} is not a time")
    return found


def _spans(buffer: FlatBuffer, info: Table, blob_size: int, archive_size: int) -> tuple[Span, ...]:
    """Return the spans, which cover the archive one after the other. Raises BadLayer, Unsupported."""
    if info.u8(0, GZIP) != GZIP:
        raise Unsupported(f"a zTOC of compression {info.u8(0, GZIP)}; regfs reads that of gzip")
    digests = [_digest(buffer.bytes_at(buffer.target(at))) for at in info.references(2)]
    points = _checkpoints(info.bytes(3))
    if not points or not len(points) == len(digests) == info.i32(1) + 1:
        raise BadLayer(f"it has {len(points)} checkpoints, {len(digests)} digests, {info.i32(1) + 1} spans")
    if points[0][1]:
        raise BadLayer(f"the first span begins at byte {points[0][1]} of the archive")
    spans = []
    last = points[-1][1]
    ends = [point[:2] for point in points[1:]] + [(blob_size, max(archive_size, last))]
    for (at, start, bits, window), (next_at, next_start), digest in zip(points, ends, digests, strict=True):
        if bits > 7:
            raise BadLayer(f"a checkpoint within {bits} bits of a byte")
        first = at - bool(bits)
        if not 0 < first < next_at <= blob_size or start > next_start:
            raise BadLayer(
                f"a span from {first} to {next_at} of {blob_size}, {start} to {next_start} of {archive_size}"
            )
        # Padding behind the end of the archive may be stored in the blob; it does not count.
        size = min(next_start, archive_size) - start
        if max(next_at - first, size) > MAX_MEMBER:
            raise Unsupported(f"a span of {size} bytes; regfs inflates up to {MAX_MEMBER} at once")
        if size > 0:
            spans.append(Span(start, size, first, next_at - first, digest, bits, window))
    return tuple(spans)


def _checkpoints(blob: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return (in, out, bits, window) of each checkpoint. Raises BadLayer."""
    if len(blob) < CHECKPOINTS_HEADER.size:
        raise BadLayer("it has no checkpoints")
    count, _ = CHECKPOINTS_HEADER.unpack_from(blob)
    whole, rest = divmod(len(blob) - CHECKPOINTS_HEADER.size, CHECKPOINT_SIZE)
    if rest or whole not in (count, count - 1):
        raise BadLayer(f"its {count} checkpoints have {len(blob)} bytes")
    points = [] if whole == count else [(_IMPLIED_START, 0, 0, bytes(WINDOW))]
    for at in range(CHECKPOINTS_HEADER.size, len(blob), CHECKPOINT_SIZE):
        start, out, bits = CHECKPOINT.unpack_from(blob, at)
        points.append((start, out, bits, blob[at + CHECKPOINT.size : at + CHECKPOINT_SIZE]))
    return points


def _digest(text: bytes) -> Digest:
    try:
        digest = Digest.parse(text.decode("ascii"))
        if digest.algorithm != "sha256":
            raise BadLayer(f"a span's digest is {digest.algorithm}")
    except (InvalidName, Unsupported, UnicodeDecodeError):
        raise BadLayer(f"{text[:80]!r} is not a digest of a span") from None
    return digest
