"""A table of contents as stargz invented it and zstd:chunked took it over: its JSON as tar entries and chunks.

    {"name": "usr/bin/tool", "type": "reg", "size": 5000000, "modtime": "2020-09-13T12:26:40Z", "mode": 493, "uid": 0,
     "gid": 0, "xattrs": {"user.a": "AP8="}, "digest": "sha256:…",
     "offset": 542, "chunkSize": 4194304, "chunkDigest": "sha256:…"}
    {"name": "usr/bin/tool", "type": "chunk", "offset": 4196149, "chunkOffset": 4194304, "chunkDigest": "sha256:…"}

- type: dir reg symlink hardlink char block fifo, and chunk for what follows the first chunk of the file before it.
- offset: of the compressed member in the blob. It ends where the next one begins, or at endOffset (zstd:chunked, of a
  whole file). innerOffset: how many bytes that member has before the chunk.
- chunkSize: 0 or absent means to the end of the file. chunkType "zeros" is a hole.
- chunkDigest: of the chunk's bytes; of a file in one piece, zstd:chunked has `digest` alone.

Sources: stargz-snapshotter, docs/estargz.md and estargz/types.go; containers/storage, pkg/chunked/internal/minimal.
Pure; one thread.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from regfs.errors import BadLayer, InvalidName, TooLarge, Unsupported
from regfs.layers.formats.format import MAX_MEMBER, Chunk
from regfs.layers.formats.toc_json import entries_of
from regfs.layers.tar.paths import components_of
from regfs.layers.tar.pax import xattrs_of
from regfs.layers.tar.tar_reader import HARD_LINK, MAX_FILE_SIZE, TarEntry, owner_of
from regfs.model.attributes import device_number
from regfs.model.dates import exact_date_ns
from regfs.model.digest import Digest

MAX_TABLE = 1 << 30
"""Bytes of JSON: more than the greatest number of entries that an index takes has."""
MAX_OFFSETS = 1 << 22

_KINDS = {
    "dir": stat.S_IFDIR,
    "reg": stat.S_IFREG,
    "symlink": stat.S_IFLNK,
    "hardlink": HARD_LINK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
# The character after the number makes sure that it is all of it, where a block ends within.
_OFFSET = re.compile(rb'"offset"\s*:\s*(\d{1,18})\s*[,}]')
_OVERLAP = 64
# What Go's encoder writes for bytes that are no UTF-8: the name is lost.
_LOST = "\ufffd"
# The most that a member can be longer than what is in it; the next member may begin much later.
_LEAST_RANGE = 1 << 16

Fields = dict[str, object]


class Offsets:
    """Where compressed members begin, from all entries of a table: a member ends where the next one begins."""

    def __init__(self, blocks: Iterable[bytes], *, end: int) -> None:
        """Take them from the JSON text; *end* is where the last member ends. Raises TooLarge."""
        self.end = end
        self._offsets = array("Q")
        last, rest, size, in_order = -1, b"", 0, True
        for block in blocks:
            size += len(block)
            if size > MAX_TABLE:
                raise TooLarge(f"a table of contents of more than {MAX_TABLE} bytes")
            for match in _OFFSET.finditer(rest + block):
                offset = int(match[1])
                if offset != last:
                    self._offsets.append(offset)
                    in_order, last = in_order and offset > last, offset
            rest = block[-_OVERLAP:]
            if len(self._offsets) > MAX_OFFSETS:
                raise TooLarge(f"a table of contents of more than {MAX_OFFSETS} chunks")
        if not in_order:
            self._offsets = array("Q", sorted(self._offsets))

    def end_of(self, offset: int) -> int:
        """Return where the member at *offset* ends at the latest."""
        index = bisect_right(self._offsets, offset)
        return min(self._offsets[index], self.end) if index < len(self._offsets) else self.end


class Toc:
    """The entries of one table; see Table in format.py."""

    def __init__(
        self, blocks: Callable[[], Iterable[bytes]], *, offsets: Offsets, hidden: Collection[bytes] = ()
    ) -> None:
        """*blocks* gives the JSON text, verified, from its start each time; *hidden* names in the root are left out."""
        self._blocks = blocks
        self._offsets = offsets
        self._hidden = frozenset(hidden)
        self._wrong = 0
        self._first_wrong = ""

    def entries(self) -> Iterator[tuple[TarEntry, tuple[Chunk, ...]]]:
        """Yield entries and their chunks. Raises BadLayer, Unsupported."""
        file: _File | None = None
        for fields in entries_of(self._blocks()):
            if fields.get("type") == "chunk":
                if file is None:
                    raise BadLayer("the table of contents has a chunk that follows no file")
                file.parts.append(fields)
                continue
            if file is not None and not file.is_hidden:
                yield file.entry, self._chunks(file)
            entry = _entry(fields)
            file = _File(entry, [fields], self._hides(entry.path))
        if file is not None and not file.is_hidden:
            yield file.entry, self._chunks(file)

    @property
    def remark(self) -> str:
        """What is wrong with single files."""
        if not self._wrong:
            return ""
        return (
            f"the table of contents is wrong about {self._wrong} files, which cannot be read;"
            f" the first of them: {self._first_wrong}"
        )

    def _hides(self, path: bytes) -> bool:
        return bool(self._hidden) and path.rpartition(b"/")[2] in self._hidden and len(components_of(path)) == 1

    def _chunks(self, file: _File) -> tuple[Chunk, ...]:
        entry = file.entry
        if entry.kind != stat.S_IFREG or not entry.size:
            return ()
        try:
            return self._checked(file)
        except BadLayer as error:
            self._wrong += 1
            self._first_wrong = self._first_wrong or f"{entry.path[:300]!r}: {error}"
            return ()

    def _checked(self, file: _File) -> tuple[Chunk, ...]:
        """Return the chunks of *file*, which cover it one after the other. Raises BadLayer, Unsupported."""
        size, parts = file.entry.size, file.parts
        if len(parts) == 1 and "chunkOffset" not in parts[0] and "chunkType" not in parts[0]:  # as nearly all are
            fields = parts[0]
            if _number(fields, "chunkSize") in (0, size):
                digest = _digest(fields.get("chunkDigest") or fields.get("digest"))
                return (self._stored(fields, 0, size, digest=digest, end=_number(fields, "endOffset")),)
        chunks: list[Chunk] = []
        at_byte = 0
        for number, fields in enumerate(parts, 1):
            is_last = number == len(parts)
            offset, length = _number(fields, "chunkOffset"), _number(fields, "chunkSize")
            if not length and is_last:
                length = size - offset
            if offset != at_byte or not 0 < length <= size - offset:
                raise BadLayer(f"a chunk of {length} bytes at byte {offset}, where one for {at_byte} to {size} is due")
            at_byte += length
            if fields.get("chunkType") == "zeros":
                chunks.append(Chunk(offset, length, 0, 0, 0, None))
                continue
            text = fields.get("chunkDigest") or (fields.get("digest") if len(parts) == 1 else None)
            end = _number(parts[0], "endOffset") if is_last else 0
            chunks.append(self._stored(fields, offset, length, digest=_digest(text), end=end))
        if at_byte != size:
            raise BadLayer(f"its chunks have {at_byte} of its {size} bytes")
        return tuple(chunks)

    def _stored(self, fields: Fields, offset: int, size: int, *, digest: Digest, end: int) -> Chunk:
        at, inner = _number(fields, "offset"), _number(fields, "innerOffset")
        if inner + size > MAX_MEMBER:
            raise Unsupported(f"a chunk needs {inner + size} bytes to be unpacked at once, more than {MAX_MEMBER}")
        end = end or self._offsets.end_of(at)
        if not at < end <= self._offsets.end:
            raise BadLayer(f"a chunk is stored from {at} to {end}; the layer's content ends at {self._offsets.end}")
        stored = min(end - at, 2 * (inner + size) + _LEAST_RANGE)
        return Chunk(offset, size, at, stored, inner, digest)


class _File(NamedTuple):
    """An entry, and the objects of the table that tell of its chunks: its own, and those that follow."""

    entry: TarEntry
    parts: list[Fields]
    is_hidden: bool


def _entry(fields: Fields) -> TarEntry:
    """Return the tar entry that one object of the table describes. Raises BadLayer, Unsupported."""
    path = _name(fields.get("name"))
    kind = _KINDS.get(str(fields.get("type")))
    if kind is None:
        raise Unsupported(f"the table of contents has an entry of type {str(fields.get('type'))[:40]!r}")
    link, xattrs = fields.get("linkName"), fields.get("xattrs")
    try:
        size = _number(fields, "size") if kind == stat.S_IFREG else 0
        device = device_number(_number(fields, "devMajor"), _number(fields, "devMinor")) if kind in _DEVICES else 0
        return TarEntry(
            path, kind, _number(fields, "mode") & 0o7777, _owner(fields, "uid"), _owner(fields, "gid"), size,
            _modified_ns(fields.get("modtime")), _name(link) if link else b"", device,
            _xattrs(xattrs) if xattrs else None, None,
        )  # fmt: skip
    except BadLayer as error:
        raise BadLayer(f"the table of contents, {path[:200]!r}: {error}") from None


def _number(fields: Fields, key: str) -> int:
    value = fields.get(key, 0)
    if type(value) is int and 0 <= value <= MAX_FILE_SIZE:  # as nearly all are; a boolean is no number
        return value
    if value is None:
        return 0
    raise BadLayer(f"{key} is {str(value)[:40]!a}")


def _owner(fields: Fields, key: str) -> int:
    value = fields.get(key, 0)
    return owner_of(value) if type(value) is int else _number(fields, key)


def _name(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadLayer("a name is no string")
    if _LOST in text:
        raise Unsupported("the table of contents cannot tell a name that is no UTF-8")
    try:
        name = text.encode()
    except UnicodeEncodeError:
        raise BadLayer(f"no encoder takes the name {text[:80]!a}") from None
    if b"\0" in name:
        raise BadLayer(f"a name with a NUL: {name[:100]!r}")
    return name


def _modified_ns(text: object) -> int:
    """Return the time *text*, 1970 where there is none. Raises BadLayer."""
    if text is None or text == "":
        return 0
    found = _date_ns(text) if isinstance(text, str) else None
    if found is None:
        raise BadLayer(f"{str(text)[:40]!a} is no time")
    return found


# Few times make up an image.
_date_ns = lru_cache(maxsize=4096)(exact_date_ns)


def _xattrs(values: object) -> dict[bytes, bytes] | None:
    """Return the extended attributes, whose values are base64, those left out that an ingest would leave out too."""
    if not isinstance(values, dict):
        raise BadLayer("its extended attributes are no object")
    records: dict[bytes, bytes] = {}
    for name, value in values.items():
        try:
            records[b"SCHILY.xattr." + _name(name)] = base64.b64decode(value or b"", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise BadLayer(f"the extended attribute {str(name)[:60]!a} is no base64") from None
    return xattrs_of(records)


def _digest(text: object) -> Digest:
    """Return the digest that *text* spells, if bytes can be verified by it. Raises BadLayer."""
    try:
        digest = Digest.parse(text if isinstance(text, str) else "")
        if digest.algorithm != "sha256":
            digest.hasher()
    except (InvalidName, Unsupported):
        raise BadLayer("a chunk has no digest that can be verified") from None
    return digest
