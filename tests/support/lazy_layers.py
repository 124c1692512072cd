"""Layers with a table of contents, written after the formats' specifications.

    estargz(file("a", b"…"), chunk_size=1000)                   what `ctr-remote image convert --estargz` makes
    zstd_chunked(file("a", b"…"), generation="2023")            what podman and skopeo make, and made

*change* may alter the table's entries before they are encoded; the digests in the annotations are right for what
comes of it, so that a wrong table is one that its manifest vouches for. *table* replaces the JSON text as a whole.
tests/layers/test_format_tools.py holds the formats' readers against layers of the real tools.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from regfs.layers.source import ByteSource
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from tests.support.images import BLOCK, OCI, BuiltLayer, TarEntry, file, padded, tar_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
LANDMARK = ".no.prefetch.landmark"
Fields = dict[str, object]
Change = Callable[[list[Fields]], None]
Footer = Literal["estargz", "stargz", "external"]
Generation = Literal["2021", "2022", "2023", "stargz"]

# The order in which Go encodes the fields of an entry.
_STARGZ_ORDER = [
    "name", "type", "size", "modtime", "linkName", "mode", "uid", "gid", "offset", "innerOffset", "devMajor",
    "devMinor", "xattrs", "digest", "chunkOffset", "chunkSize", "chunkDigest",
]  # fmt: skip
_STORAGE_ORDER = [
    "type", "name", "linkName", "mode", "size", "uid", "gid", "modtime", "devMajor", "devMinor", "xattrs", "digest",
    "offset", "endOffset", "chunkSize", "chunkOffset", "chunkDigest", "chunkType",
]  # fmt: skip
_TYPES = {b"0": "reg", b"1": "hardlink", b"2": "symlink", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}
_HOLE = 1024


@dataclass
class MemorySource(ByteSource):
    """A blob in memory, which remembers what was read of it."""

    content: bytes
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.content)

    def read_at(self, offset: int, size: int) -> bytes:
        assert 0 <= offset <= offset + size <= len(self.content), f"{offset}, {size} of {len(self.content)}"
        self.reads.append((offset, size))
        return self.content[offset : offset + size]


def descriptor_of(built: BuiltLayer) -> Descriptor:
    return Descriptor(built.media_type, built.digest, len(built.blob), annotations=built.annotations)


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def _date(mtime_ns: int, *, fraction: bool) -> str:
    seconds, nanoseconds = divmod(mtime_ns, 10**9)
    if not fraction:
        seconds, nanoseconds = seconds + (nanoseconds >= 5 * 10**8), 0
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    digits = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{date.year:04}{date:-%m-%dT%H:%M:%S}{digits}Z"


def _fields(entry: TarEntry, *, fraction: bool) -> Fields:
    """Return what a table says of *entry*, but for its chunks; zeros are left out, as Go does."""
    fields: Fields = {
        "name": entry.name.decode(),
        "type": _TYPES[entry.type],
        "size": len(entry.content) if entry.type == b"0" else 0,
        "modtime": _date(entry.mtime_ns, fraction=fraction) if entry.mtime_ns else "",
        "linkName": entry.target.decode(),
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "devMajor": entry.device[0],
        "devMinor": entry.device[1],
        "xattrs": {name: base64.b64encode(value).decode() for name, value in entry.xattrs.items()},
    }
    return {key: value for key, value in fields.items() if value}


def _ordered(table: list[Fields], order: Sequence[str]) -> list[Fields]:
    return [{key: fields[key] for key in sorted(fields, key=order.index)} for fields in table]


def _header(entry: TarEntry) -> bytes:
    packed = entry.pack()
    return packed[: len(packed) - len(padded(entry.content))]


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(entries: list[Fields], change: Change | None, *, indent: str | None) -> bytes:
    if change is not None:
        change(entries)
    return json.dumps({"version": 1, "entries": entries}, indent=indent, ensure_ascii=False).encode()


# eStargz


class _Members:
    """A blob of gzip members, and the tar that is in them."""

    def __init__(self, *, least: int, compress: Callable[[bytes], bytes]) -> None:
        self.blob = bytearray()
        self.tar = bytearray()
        self._least = least
        self._compress = compress
        self._open = b""

    def add(self, content: bytes) -> None:
        self._open += content
        self.tar += content

    def begin(self) -> tuple[int, int]:
        """Return offset and inner offset of what comes next; a member that has enough in it is closed before."""
        if len(self._open) >= self._least:
            self.close()
        return len(self.blob), len(self._open)

    def close(self) -> None:
        if self._open:
            self.blob += self._compress(self._open)
        self._open = b""


def _stargz_entries(entries: Sequence[TarEntry], members: _Members, chunk_size: int) -> list[Fields]:
    table: list[Fields] = []
    for entry in entries:
        members.add(_header(entry))
        table.append(_fields(entry, fraction=False))
        if entry.type != b"0":
            continue
        table[-1]["digest"] = _sha256(entry.content)
        size = len(entry.content)
        for at in range(0, size, chunk_size):
            if at:
                table.append({"name": entry.name.decode(), "type": "chunk", "chunkOffset": at})
            chunk = entry.content[at : at + chunk_size]
            offset, inner = members.begin()
            members.add(chunk)
            table[-1] |= {"offset": offset, "chunkDigest": _sha256(chunk)}
            table[-1] |= {"innerOffset": inner} if inner else {}
            table[-1] |= {"chunkSize": len(chunk)} if at + len(chunk) < size else {}
        members.add(bytes(-size % BLOCK))
    members.close()
    return _ordered(table, _STARGZ_ORDER)


def footer(offset: int, kind: Footer = "estargz") -> bytes:
    """Return the empty gzip member at the end of an eStargz layer whose table is at *offset*."""
    extra = {
        "estargz": b"SG\x16\x00%016xSTARGZ" % offset,
        "stargz": b"%016xSTARGZ" % offset,
        "external": b"SG\x11\x00STARGZEXTERNALTOC",
    }[kind]
    fixed = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
    return fixed + len(extra).to_bytes(2, "little") + extra + b"\x01\0\0\xff\xff" + bytes(8)


def packed_table(text: bytes, *, name: str = "stargz.index.json") -> bytes:
    """Return the tar.gz that an eStargz layer has its table in."""
    return _gzip(tar_of(file(name, text)))


def estargz(
    *entries: TarEntry,
    chunk_size: int = 1 << 22,
    least_member: int = 1,
    kind: Footer = "estargz",
    change: Change | None = None,
    table: bytes | None = None,
) -> BuiltLayer:
    """Return the eStargz layer of *entries*; small files share members of *least_member* bytes (inner offsets)."""
    return estargz_and_table(
        *entries, chunk_size=chunk_size, least_member=least_member, kind=kind, change=change, table=table
    )[0]


def estargz_and_table(
    *entries: TarEntry,
    chunk_size: int = 1 << 22,
    least_member: int = 1,
    kind: Footer = "estargz",
    change: Change | None = None,
    table: bytes | None = None,
) -> tuple[BuiltLayer, bytes]:
    """Return the layer, and the blob of its table, which is a part of it unless *kind* is external."""
    members = _Members(least=least_member, compress=_gzip)
    listed = _stargz_entries([file(LANDMARK, b"\x0f", mtime_ns=0, mode=0), *entries], members, chunk_size)
    text = _json(listed, change, indent="\t") if table is None else table
    packed = packed_table(text)
    tar, blob = bytes(members.tar), bytes(members.blob)
    if kind == "external":
        blob, tar = blob + _gzip(bytes(2 * BLOCK)), tar + bytes(2 * BLOCK)
    else:
        blob, tar = blob + packed, tar + gzip.decompress(packed)
    blob += footer(len(members.blob), kind)
    return BuiltLayer(tar, blob, f"{OCI}.layer.v1.tar+gzip", {TOC_DIGEST: _sha256(text)}), packed


# zstd:chunked


def _skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(content)) + content


def pieces(content: bytes, chunk_size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield *content* in chunks, and whether each is a hole: a run of at least 1 KiB of zeros."""
    at = 0
    while at < len(content):
        end = content.find(bytes(_HOLE), at)
        if end == at:
            rest = content[at:].lstrip(b"\0")
            end = len(content) - len(rest)
            yield content[at:end], True
        else:
            end = min(len(content) if end < 0 else end, at + chunk_size)
            yield content[at:end], False
        at = end


def _podman_entries(entries: Sequence[TarEntry], members: _Members, chunk_size: int, *, fraction: bool) -> list[Fields]:
    table: list[Fields] = []
    for entry in entries:
        members.add(_header(entry))
        members.close()
        table.append(_fields(entry, fraction=fraction))
        if entry.type != b"0" or not entry.content:
            continue
        main = table[-1]
        main |= {"digest": _sha256(entry.content), "offset": len(members.blob)}
        cut = list(pieces(entry.content, chunk_size))
        at = 0
        for chunk, is_hole in cut:
            if at:
                table.append({"type": "chunk", "name": entry.name.decode(), "offset": len(members.blob)})
            if len(cut) > 1:
                table[-1] |= {"chunkSize": len(chunk), "chunkDigest": _sha256(chunk)}
                table[-1] |= {"chunkOffset": at} if at else {}
                table[-1] |= {"chunkType": "zeros"} if is_hole else {}
            members.add(chunk)
            members.close()
            at += len(chunk)
        main["endOffset"] = len(members.blob)
        members.add(bytes(-len(entry.content) % BLOCK))
    members.add(bytes(2 * BLOCK))
    members.close()
    return _ordered(table, _STORAGE_ORDER)


def zstd_chunked(
    *entries: TarEntry,
    generation: Generation = "2023",
    chunk_size: int = 1 << 16,
    change: Change | None = None,
    table: bytes | None = None,
) -> BuiltLayer:
    """Return the zstd:chunked layer of *entries*, as it was written from that year on, or as stargz writes it."""
    members = _Members(least=1, compress=zstd.compress)
    if generation == "stargz":
        landmark = file(LANDMARK, b"\x0f", mtime_ns=0, mode=0)
        listed = _stargz_entries([landmark, *entries], members, chunk_size)
        members.add(bytes(2 * BLOCK))
        members.close()
    else:
        listed = _podman_entries(entries, members, chunk_size, fraction=True)
    text = _json(listed, change, indent=None) if table is None else table
    packed = zstd.compress(text)
    at = len(members.blob) + 8
    numbers = [at, len(packed), len(text), 1]
    blob = bytes(members.blob) + _skippable(packed)
    if generation == "2023":
        split = zstd.compress(b'{"type":2,"payload":"","position":0}\n')
        numbers += [len(blob) + 8, len(split), 37]
        blob += _skippable(split) + _skippable(struct.pack("<7Q", *numbers) + b"GNUlInUx")
    else:
        blob += _skippable(struct.pack("<4Q", *numbers) + b"GnUlInUx")
    prefix = "io.containers" if generation in ("2021", "stargz") else "io.github.containers"
    annotations = {
        f"{prefix}.zstd-chunked.manifest-position": ":".join(map(str, numbers[:4])),
        f"{prefix}.zstd-chunked.manifest-checksum": _sha256(packed),
    }
    if generation == "stargz":
        annotations[TOC_DIGEST] = _sha256(text)
    if generation == "2023":
        annotations[f"{prefix}.zstd-chunked.tarsplit-position"] = ":".join(map(str, numbers[4:]))
    return BuiltLayer(bytes(members.tar), blob, f"{OCI}.layer.v1.tar+zstd", annotations)


def with_annotations(built: BuiltLayer, **changed: str) -> BuiltLayer:
    """Return *built* with other values of the annotations whose keys end so (`toc_digest="sha256:…"`)."""
    annotations = dict(built.annotations)
    for ending, value in changed.items():
        key = next(key for key in annotations if key.replace("-", "_").replace(".", "_").endswith(ending))
        annotations[key] = value
    return BuiltLayer(built.tar, built.blob, built.media_type, annotations)


WRONG = str(Digest.of(b"something else"))
