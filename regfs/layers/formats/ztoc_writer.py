"""Writes the zTOC of a layer while the layer streams by; ztoc.py has the format.

The files are put into the FlatBuffer as they come, so that an archive of a million files needs some 200 bytes for each.
Used by images/soci_convert.py. Blocks for as long as the layer's bytes do; one thread.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from regfs.errors import DigestMismatch, TooLarge, Unsupported
from regfs.layers.compression.checkpoints import SPAN_SIZE, Checkpoint, CheckpointedGzip
from regfs.layers.formats.ztoc import CHECKPOINT, CHECKPOINTS_HEADER, GZIP, MAX_ZTOC, TYPES, VERSION
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.pax import Records
from regfs.layers.tar.tar_header import Header, text
from regfs.layers.tar.tar_reader import TarEntry, TarReader
from regfs.model.digest import Digest

if TYPE_CHECKING:
    from flatbuffers import Builder

_TYPE_NAMES = {kind: name for name, kind in TYPES.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_S = 1_000_000_000
_MAGIC, _USER, _GROUP = slice(257, 262), slice(265, 297), slice(297, 329)
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_DEVICE_MINOR_LOW, _DEVICE_MINOR_HIGH = 0xFF, 0xFFF00


def write_ztoc(
    chunks: Iterable[bytes],
    *,
    diff_id: Digest,
    tool: str,
    span_size: int = SPAN_SIZE,
    report: Callable[[int], None] = lambda _: None,
) -> bytes:
    """Return the zTOC of the gzip layer in *chunks*, verified bytes; *tool* is the builder's name in it.

    *report* is called with the number of bytes of the layer that are done. Raises Unsupported where a zTOC cannot
    describe the layer, BadLayer where it cannot be read, DigestMismatch where the archive has another diff id than
    *diff_id*, TooLarge.
    """
    from flatbuffers import Builder

    stream = CheckpointedGzip(span_size=span_size)
    hasher = diff_id.hasher()

    def hashed() -> Iterator[bytes]:
        for block in stream.inflate(chunks):
            hasher.update(block)
            report(stream.received)
            yield block

    builder = Builder(1 << 20)
    feed = ByteFeed(hashed())
    reader = TarReader(feed)
    files = array("Q")
    for entry in reader:
        if reader.has_global_records:
            raise Unsupported("no zTOC can stand for it: it has a global PAX header")
        assert reader.header is not None
        files.append(_file(builder, entry, reader.header, reader.records, feed.offset))
        if builder.Offset() > MAX_ZTOC:
            raise TooLarge(f"a zTOC of more than {MAX_ZTOC} bytes")
    if reader.remark:
        raise Unsupported(f"no zTOC can stand for it: {reader.remark}")
    feed.drain()
    if hasher.hexdigest() != diff_id.encoded:
        raise DigestMismatch(f"the archive has {hasher.hexdigest()}, the image's config says {diff_id}")
    return _finished(builder, files, stream, tool=tool, span_size=span_size)


def _file(builder: Builder, entry: TarEntry, header: Header, records: Records, offset: int) -> int:
    """Put one FileMetadata into the document and return its position. Raises Unsupported.

    All PAX *records* go into it, names of owners, and the mode as *header* has it, with the bits of the file's type
    that old writers put there. So does soci-snapshotter, which compares them with the header.
    """
    if entry.extents is not None:
        raise Unsupported(f"no zTOC can stand for it: {entry.path[:200]!r} is a sparse file")
    pairs = []
    for record in sorted(records.items()):
        key, value = (builder.CreateString(part) for part in record)
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, key, 0)
        builder.PrependUOffsetTRelativeSlot(1, value, 0)
        pairs.append(builder.EndObject())
    xattrs = _vector(builder, pairs) if pairs else 0
    name, link = builder.CreateString(entry.path), builder.CreateString(entry.link)
    kind = builder.CreateSharedString(_TYPE_NAMES[entry.kind])
    modified = builder.CreateString(_date(entry.mtime_ns))
    user, group = (builder.CreateSharedString(name) for name in _owners(header, records))
    major, minor = _device(entry.rdev) if entry.kind in _DEVICES else (0, 0)
    builder.StartObject(14)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(1, kind, 0)
    builder.PrependInt64Slot(2, offset, 0)
    builder.PrependInt64Slot(3, entry.size, 0)
    builder.PrependUOffsetTRelativeSlot(4, link, 0)
    builder.PrependInt64Slot(5, header.mode, 0)
    builder.PrependUint32Slot(6, entry.uid, 0)
    builder.PrependUint32Slot(7, entry.gid, 0)
    builder.PrependUOffsetTRelativeSlot(8, user, 0)
    builder.PrependUOffsetTRelativeSlot(9, group, 0)
    builder.PrependUOffsetTRelativeSlot(10, modified, 0)
    builder.PrependInt64Slot(11, major, 0)
    builder.PrependInt64Slot(12, minor, 0)
    builder.PrependUOffsetTRelativeSlot(13, xattrs, 0)
    return int(builder.EndObject())


def _finished(builder: Builder, files: array[int], stream: CheckpointedGzip, *, tool: str, span_size: int) -> bytes:
    metadata = _vector(builder, files)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, metadata, 0)
    toc = builder.EndObject()
    digests = _vector(builder, [builder.CreateString(f"sha256:{digest}") for digest in stream.span_digests])
    checkpoints = builder.CreateByteVector(_packed(stream.checkpoints, span_size))
    builder.StartObject(4)
    builder.PrependInt8Slot(0, GZIP, GZIP)
    builder.PrependInt32Slot(1, len(stream.checkpoints) - 1, 0)
    builder.PrependUOffsetTRelativeSlot(2, digests, 0)
    builder.PrependUOffsetTRelativeSlot(3, checkpoints, 0)
    compression = builder.EndObject()
    version, tool_at = builder.CreateString(VERSION), builder.CreateString(tool)
    builder.StartObject(6)
    builder.PrependUOffsetTRelativeSlot(0, version, 0)
    builder.PrependUOffsetTRelativeSlot(1, tool_at, 0)
    builder.PrependInt64Slot(2, stream.received, 0)
    builder.PrependInt64Slot(3, stream.inflated, 0)
    builder.PrependUOffsetTRelativeSlot(4, toc, 0)
    builder.PrependUOffsetTRelativeSlot(5, compression, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def _packed(checkpoints: list[Checkpoint], span_size: int) -> bytes:
    packed = bytearray(CHECKPOINTS_HEADER.pack(len(checkpoints), span_size))
    for point in checkpoints:
        packed += CHECKPOINT.pack(point.at, point.out, point.bits) + point.window
    return bytes(packed)


def _vector(builder: Builder, references: Iterable[int]) -> int:
    ordered = list(references)
    builder.StartVector(4, len(ordered), 4)
    for reference in reversed(ordered):
        builder.PrependUOffsetTRelative(reference)
    return int(builder.EndVector())


def _owners(header: Header, records: Records) -> tuple[bytes, bytes]:
    """Return the names of user and group, empty where the archive has none. Source: POSIX, pax, "ustar"."""
    names = (text(header.block[_USER]), text(header.block[_GROUP])) if header.block[_MAGIC] == b"ustar" else (b"", b"")
    return records.get(b"uname") or names[0], records.get(b"gname") or names[1]


def _date(mtime_ns: int) -> str:
    """Return the time as RFC 3339 has it. Raises Unsupported where that has none."""
    seconds, nanoseconds = divmod(mtime_ns, _S)
    try:
        date = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise Unsupported(f"no zTOC can stand for it: {seconds} s is a time that RFC 3339 has no words for") from None
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{date.year:04}{date:-%m-%dT%H:%M:%S}{fraction}Z"


def _device(rdev: int) -> tuple[int, int]:
    """Return major and minor number of Linux's device number *rdev*."""
    return rdev >> 8 & 0xFFF, rdev & _DEVICE_MINOR_LOW | rdev >> 12 & _DEVICE_MINOR_HIGH
