"""gzip layers with a SOCI zTOC beside them, written after the format's schema.

    built = soci(file("a", b"…"), span=10_000)      built.layer, built.ztoc

The archive is read by tarfile, spans end where the compressor is flushed. *change* may alter what the zTOC says before
it is encoded. flat() encodes any FlatBuffer; read_flat() decodes one by the library's own reader.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import flatbuffers

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from tests.support.images import OCI, BuiltImage, BuiltLayer, TarEntry, image_of, tar_of
from tests.support.served import Served

GZIP_MEDIA_TYPE = f"{OCI}.layer.v1.tar+gzip"
_TYPES = {
    tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg", tarfile.LNKTYPE: "hardlink", tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.DIRTYPE: "dir", tarfile.FIFOTYPE: "fifo",
}  # fmt: skip


@dataclass
class Fields:
    """What a zTOC says, before it is encoded."""

    blob_size: int
    archive_size: int
    files: list[dict[str, object]]
    points: list[tuple[int, int, int, bytes]]
    digests: list[str]
    version: str = "0.9"
    algorithm: int = 1
    max_span: int = field(init=False)
    count: int = field(init=False)
    first_point: int = 0

    def __post_init__(self) -> None:
        self.max_span = len(self.points) - 1
        self.count = len(self.points)


@dataclass(frozen=True)
class SociLayer:
    layer: BuiltLayer
    ztoc: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.layer.media_type, self.layer.digest, len(self.layer.blob))

    @property
    def ztoc_descriptor(self) -> dict[str, object]:
        """Return the entry of the SOCI index's layers."""
        annotations = {
            "com.amazon.soci.image-layer-digest": str(self.layer.digest),
            "com.amazon.soci.image-layer-mediaType": self.layer.media_type,
        }
        digest, size = str(Digest.of(self.ztoc)), len(self.ztoc)
        return {"mediaType": "application/octet-stream", "digest": digest, "size": size, "annotations": annotations}


Change = Callable[[Fields], None]


def soci(*entries: TarEntry, span: int = 10_000, change: Change | None = None, members: int = 0) -> SociLayer:
    """Return the layer of *entries*; every *members* spans a gzip member ends, and the next span begins in it."""
    tar = tar_of(*entries)
    blob = bytearray()
    points: list[tuple[int, int, int, bytes]] = []
    pieces = [tar[at : at + span] for at in range(0, len(tar), span)]
    compressor = None
    member = b""
    for number, piece in enumerate(pieces):
        if compressor is None:
            blob += bytes.fromhex("1f8b0808000000000003") + b"a name\0"
            compressor, member = zlib.compressobj(6, wbits=-15), b""
        at = number * span
        points.append((len(blob), at, 0, tar[max(0, at - 32768) : at].rjust(32768, b"\0")))
        member += piece
        blob += compressor.compress(piece)
        is_last = number == len(pieces) - 1 or (members and number % members == members - 1)
        blob += compressor.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)
        if is_last:
            blob += struct.pack("<II", zlib.crc32(member), len(member))
            compressor = None
    ends = [point[0] for point in points[1:]] + [len(blob)]
    digests = [f"sha256:{sha256(blob[point[0] : end]).hexdigest()}" for point, end in zip(points, ends, strict=True)]
    fields = Fields(len(blob), len(tar), files_of(tar), points, digests)
    if change is not None:
        change(fields)
    return SociLayer(BuiltLayer(tar, bytes(blob), GZIP_MEDIA_TYPE), encoded(fields))


def files_of(tar: bytes) -> list[dict[str, object]]:
    """Return what a zTOC says of the files of *tar*."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            records = {
                key.encode(errors="surrogateescape"): value.encode(errors="surrogateescape")
                for key, value in member.pax_headers.items()
            }
            found.append(
                {
                    # tarfile takes the slash off, and decodes what is no UTF-8 by its own rules
                    "name": member.name.encode(errors="surrogateescape") + b"/" * member.isdir(),
                    "type": _TYPES[member.type], "offset": member.offset_data, "size": member.size,
                    "link": member.linkname.encode(errors="surrogateescape"), "mode": member.mode, "uid": member.uid,
                    "gid": member.gid, "time": _date(member, records), "major": member.devmajor,
                    "minor": member.devminor, "records": records,
                }
            )  # fmt: skip
    return found


def _date(member: tarfile.TarInfo, records: Mapping[bytes, bytes]) -> str:
    text = records.get(b"mtime", str(int(member.mtime)).encode()).decode()
    whole, _, fraction = text.lstrip("-").partition(".")
    total = (int(whole) * 10**9 + int(fraction[:9].ljust(9, "0") or 0)) * (-1 if text.startswith("-") else 1)
    seconds, nanoseconds = divmod(total, 10**9)
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    digits = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{date.year:04}{date:-%m-%dT%H:%M:%S}{digits}Z"


def encoded(fields: Fields) -> bytes:
    """Return the zTOC that says *fields*."""
    checkpoints = struct.pack("<iq", fields.count, 10_000)
    for at, out, bits, window in fields.points[fields.first_point :]:
        checkpoints += struct.pack("<qqB", at, out, bits) + window
    files = []
    for each in fields.files:
        records = each["records"]
        assert isinstance(records, dict)
        files.append(
            (
                each["name"], each["type"], ("q", each["offset"]), ("q", each["size"]), each["link"],
                ("q", each["mode"]), ("I", each["uid"]), ("I", each["gid"]), None, None, each["time"],
                ("q", each["major"]), ("q", each["minor"]), [(key, value) for key, value in records.items()],
            )
        )  # fmt: skip
    info = (("b", fields.algorithm), ("i", fields.max_span), list(fields.digests), bytearray(checkpoints))
    root = (fields.version, "a test", ("q", fields.blob_size), ("q", fields.archive_size), (files,), info)
    return flat(root)


def flat(root: tuple[object, ...]) -> bytes:
    """Return the FlatBuffer of *root*: tuples are tables, lists vectors, pairs of a letter and a number scalars."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_put(builder, root))
    return bytes(builder.Output())


def _put(builder: flatbuffers.Builder, value: object) -> int:
    if isinstance(value, bytearray):
        return int(builder.CreateByteVector(bytes(value)))
    if isinstance(value, str | bytes):
        return int(builder.CreateString(value))
    if isinstance(value, list):
        positions = [_put(builder, each) for each in value]
        builder.StartVector(4, len(positions), 4)
        for position in reversed(positions):
            builder.PrependUOffsetTRelative(position)
        return int(builder.EndVector())
    assert isinstance(value, tuple)
    references = [None if each is None or _is_scalar(each) else _put(builder, each) for each in value]
    builder.StartObject(len(value))
    prepend = {"q": builder.PrependInt64Slot, "i": builder.PrependInt32Slot, "I": builder.PrependUint32Slot,
               "b": builder.PrependInt8Slot}  # fmt: skip
    for slot, (each, reference) in enumerate(zip(value, references, strict=True)):
        if _is_scalar(each):
            prepend[each[0]](slot, each[1], 0)
        elif reference is not None:
            builder.PrependUOffsetTRelativeSlot(slot, reference, 0)
    return int(builder.EndObject())


def _is_scalar(value: object) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] in ("q", "i", "I", "b")
    )


class FlatTable:
    """One table, by the library's own reader."""

    def __init__(self, content: bytes, at: int | None = None) -> None:
        position = struct.unpack_from("<I", content)[0] if at is None else at
        self._content = content
        self._table = flatbuffers.table.Table(content, position)

    def _at(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def number(self, slot: int, letter: str = "q") -> int:
        at = self._at(slot)
        return int(struct.unpack_from("<" + letter, self._content, self._table.Pos + at)[0]) if at else 0

    def text(self, slot: int) -> bytes:
        at = self._at(slot)
        return bytes(self._table.String(self._table.Pos + at)) if at else b""

    def table(self, slot: int) -> FlatTable:
        return FlatTable(self._content, self._table.Indirect(self._table.Pos + self._at(slot)))

    def octets(self, slot: int) -> bytes:
        start, count = self._vector(slot)
        return self._content[start : start + count]

    def tables(self, slot: int) -> list[FlatTable]:
        start, count = self._vector(slot)
        return [FlatTable(self._content, self._table.Indirect(start + 4 * number)) for number in range(count)]

    def texts(self, slot: int) -> list[bytes]:
        start, count = self._vector(slot)
        return [bytes(self._table.String(start + 4 * number)) for number in range(count)]

    def _vector(self, slot: int) -> tuple[int, int]:
        at = self._at(slot)
        return (self._table.Vector(at), self._table.VectorLen(at)) if at else (0, 0)


def named(fields: Fields, name: str) -> dict[str, object]:
    """Return what *fields* say of the file *name*."""
    return next(each for each in fields.files if each["name"] == name.encode())


def spans_of(points: Sequence[tuple[int, int, int, bytes]], size: int) -> list[tuple[int, int]]:
    """Return the first byte of each span in the blob, and where it ends."""
    ends = [point[0] for point in points[1:]] + [size]
    return [(point[0] - bool(point[2]), end) for point, end in zip(points, ends, strict=True)]


def soci_index(*ztocs: SociLayer, version: str = "v2", subject: BuiltImage | None = None) -> bytes:
    """Return the SOCI index of an image's layers."""
    return json.dumps(
        ({} if subject is None else {"subject": subject.descriptor()})
        | {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": {
                "mediaType": f"application/vnd.amazon.soci.index.{version}+json",
                "digest": str(Digest.of(b"{}")),
                "size": 2,
            },
            "layers": [each.ztoc_descriptor for each in ztocs],
        }
    ).encode()


def push_soci_v1(
    served: Served, name: str, tag: str, *layers: SociLayer, subject: BuiltImage | None = None
) -> BuiltImage:
    """Put an image of *layers* and a SOCI index that refers to it, or to *subject*, into the registry; return it."""
    image = served.push(name, tag, image_of(*(each.layer for each in layers)))
    index = soci_index(*layers, version="v1", subject=subject or image)
    for each in layers:
        served.registry.add_blob(name, each.ztoc)
    digest = served.registry.add_manifest(name, index, media_type=f"{OCI}.manifest.v1+json")
    entry = {
        "mediaType": f"{OCI}.manifest.v1+json", "digest": str(digest), "size": len(index),
        "artifactType": "application/vnd.amazon.soci.index.v1+json",
    }  # fmt: skip
    served.registry.repository(name).referrers.setdefault(str(image.digest), []).append(entry)
    return image


def push_soci(served: Served, name: str, tag: str, *layers: SociLayer) -> BuiltImage:
    """Put an image of *layers*, which names its SOCI index, into the registry and return it."""
    index = soci_index(*layers)
    for each in layers:
        served.registry.add_blob(name, each.ztoc)
    served.registry.add_blob(name, b"{}")
    served.registry.add_manifest(name, index, tag=f"{tag}-index", media_type=f"{OCI}.manifest.v1+json")
    annotations = {"com.amazon.soci.index-digest": str(Digest.of(index))}
    return served.push(name, tag, image_of(*(each.layer for each in layers), annotations=annotations))
