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
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain, pairwise
from operator import lt

from regfs.errors import BadLayer, DigestMismatch, InvalidName, TooLarge, Unsupported
from regfs.layers.formats.format import MAX_MEMBER, Chunk, Take
from regfs.layers.formats.toc_json import entries_and_runs_of
from regfs.layers.formats.toc_text import BoundedRun, Fields, PlainRun
from regfs.layers.tar.paths import components_of
from regfs.layers.tar.pax import xattrs_of
from regfs.layers.tar.tar_reader import HARD_LINK, MAX_FILE_SIZE, TarEntry, owner_of
from regfs.model.attributes import device_number
from regfs.model.dates import exact_date_ns
from regfs.model.digest import Digest

MAX_TABLE = 1 << 30
"""Bytes of JSON: more than the greatest number of entries that an index takes has."""
MAX_CHUNKS = 1 << 17
"""Chunks of one file: 8 GiB of those that podman cuts."""
_BATCH = 500

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
# What Go's encoder writes for bytes that are no UTF-8: the name is lost.
_LOST = "\ufffd"
# The most that a member can be longer than what is in it; the next member may begin much later.
LEAST_RANGE = 1 << 16

Part = tuple[Fields, int]
"""An object of the table, and where the member ends that begins at its offset."""
_END: Part = {}, 0


class Toc:
    """The entries of one table; see Table in format.py."""

    def __init__(
        self, blocks: Iterable[bytes], *, digest: Digest | None, end: int, hidden: Collection[bytes] = ()
    ) -> None:
        """*blocks* are the JSON text, which has *digest* unless it was verified before; *hidden* names in the root are
        left out. The layer's content ends at *end*."""
        self._digest = digest
        self._text = self._hashed(blocks)
        self._end = end
        self.hidden = frozenset(hidden)
        self._wrong = 0
        self._first_wrong = ""

    def entries(self, take: Take | None = None) -> Iterator[tuple[TarEntry, tuple[Chunk, ...]]]:
        """Yield entries and their chunks, once, but for the plain ones that *take* takes (toc_files.py).

        Raises BadLayer, Unsupported, TooLarge; DigestMismatch at the end.
        """
        parts: list[Part] = []
        items = _with_ends(entries_and_runs_of(self._text, with_runs=take is not None), self._end)
        for item, following in pairwise(chain(items, (_END,))):
            if isinstance(item, BoundedRun):
                assert take is not None
                for numbers in take(item):
                    yield from self._told([(item.run.fields(number), item.ends[number]) for number in numbers])
                continue
            parts.append(item)
            if not isinstance(following, BoundedRun) and following[0].get("type") == "chunk":
                if len(parts) > MAX_CHUNKS:
                    raise Unsupported(f"a file of more than {MAX_CHUNKS} chunks")
                continue
            yield from self._told(parts)
            parts = []

    def _told(self, parts: list[Part]) -> Iterator[tuple[TarEntry, tuple[Chunk, ...]]]:
        """Yield the entry of *parts*, unless it is hidden, and its chunks."""
        if parts[0][0].get("type") == "chunk":
            raise BadLayer("the table of contents has a chunk that follows no file")
        entry = _entry(parts[0][0])
        if not self._hides(entry.path):
            yield entry, self._chunks(entry, parts)

    def verify(self) -> None:
        """Read what is left of the text. Raises DigestMismatch where it is not the one that it should be."""
        with suppress(BadLayer, TooLarge):  # no digest is known of a text that has no end
            for _ in self._text:
                pass

    @property
    def remark(self) -> str:
        """What is wrong with single files."""
        if not self._wrong:
            return ""
        return (
            f"the table of contents is wrong about {self._wrong} files, which cannot be read;"
            f" the first of them: {self._first_wrong}"
        )

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        hasher = self._digest.hasher() if self._digest else None
        size = 0
        for block in blocks:
            size += len(block)
            if size > MAX_TABLE:
                raise TooLarge(f"a table of contents of more than {MAX_TABLE} bytes")
            if hasher is not None:
                hasher.update(block)
            yield block
        if hasher is not None and self._digest is not None and hasher.hexdigest() != self._digest.encoded:
            raise DigestMismatch(f"the table of contents has {hasher.hexdigest()}, the manifest says {self._digest}")

    def _hides(self, path: bytes) -> bool:
        return bool(self.hidden) and path.rpartition(b"/")[2] in self.hidden and len(components_of(path)) == 1

    def _chunks(self, entry: TarEntry, parts: list[Part]) -> tuple[Chunk, ...]:
        if entry.kind != stat.S_IFREG or not entry.size:
            return ()
        try:
            return self._checked(entry.size, parts)
        except BadLayer as error:
            self._wrong += 1
            self._first_wrong = self._first_wrong or f"{entry.path[:300]!r}: {error}"
            return ()

    def _checked(self, size: int, parts: list[Part]) -> tuple[Chunk, ...]:
        """Return the chunks of a file, which cover it one after the other. Raises BadLayer, Unsupported."""
        first, end = parts[0]
        is_alone = len(parts) == 1 and "chunkOffset" not in first and "chunkType" not in first  # as nearly all are
        if is_alone and _number(first, "chunkSize") in (0, size):
            digest = _digest(first.get("chunkDigest") or first.get("digest"))
            return (self._stored(first, 0, size, digest=digest, end=_number(first, "endOffset") or end),)
        chunks: list[Chunk] = []
        at_byte = 0
        for number, (fields, end) in enumerate(parts, 1):
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
            stop = (_number(first, "endOffset") if is_last else 0) or end
            chunks.append(self._stored(fields, offset, length, digest=_digest(text), end=stop))
        if at_byte != size:
            raise BadLayer(f"its chunks have {at_byte} of its {size} bytes")
        return tuple(chunks)

    def _stored(self, fields: Fields, offset: int, size: int, *, digest: Digest, end: int) -> Chunk:
        at, inner = _number(fields, "offset"), _number(fields, "innerOffset")
        if inner + size > MAX_MEMBER:
            raise Unsupported(f"a chunk needs {inner + size} bytes to be unpacked at once, more than {MAX_MEMBER}")
        if not at < end <= self._end:
            raise BadLayer(f"a chunk is stored from {at} to {end}; the layer's content ends at {self._end}")
        stored = min(end - at, 2 * (inner + size) + LEAST_RANGE)
        return Chunk(offset, size, at, stored, inner, digest)


def _with_ends(items: Iterator[Fields | PlainRun], content_end: int) -> Iterator[Part | BoundedRun]:
    """Yield each entry, and where the member ends that begins at its offset: where that of a later entry begins.

    Where a table is in another order than the blob, that is at *content_end*: such a range is longer than it need be.
    """
    following = _batch(items)
    first = _first_begin(following, content_end)
    while following:
        batch, following = following, _batch(items)
        begin = _first_begin(following, content_end)
        ends = _ends(_offsets(batch), begin, first, content_end)
        place = 0
        for item in batch:
            if isinstance(item, PlainRun):
                yield BoundedRun(item, ends[place : place + len(item)])
                place += len(item)
            else:
                yield item, ends[place]
                place += 1


def _ends(offsets: list[int], begin: int, first: int, content_end: int) -> list[int]:
    """Return where the members end that begin at *offsets*, *first* for no member; the next one begins at *begin*."""
    stored = list(filter(None, offsets))
    following = [*stored[1:], begin]
    if all(map(lt, stored, following)):  # as nearly always: what is below is as quick as Python can be
        each = iter(following)
        return [next(each) if at else first for at in offsets]
    end = content_end
    ends: list[int] = []
    for at in reversed(offsets):
        if at and at < begin:
            begin, end = at, begin
        ends.append(end if at == begin else content_end if at else first)
    ends.reverse()
    return ends


def _batch(items: Iterator[Fields | PlainRun]) -> list[Fields | PlainRun]:
    """Return the next *items*, which have _BATCH entries or some more."""
    batch: list[Fields | PlainRun] = []
    left = _BATCH
    while left > 0 and (item := next(items, None)) is not None:
        batch.append(item)
        left -= len(item) if isinstance(item, PlainRun) else 1
    return batch


def _offsets(batch: list[Fields | PlainRun]) -> list[int]:
    offsets: list[int] = []
    for item in batch:
        if isinstance(item, PlainRun):
            offsets += item.offsets
        else:
            offsets.append(_offset(item))
    return offsets


def _first_begin(batch: list[Fields | PlainRun], content_end: int) -> int:
    return min(next(filter(None, _offsets(batch)), content_end), content_end)


def _offset(fields: Fields) -> int:
    """Return the offset of an entry's member, 0 where it has none: of the first member, it is left out."""
    at = fields.get("offset")
    return at if type(at) is int and at > 0 else 0


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
            modified_ns(fields.get("modtime")), _name(link) if link else b"", device,
            _xattrs(xattrs) if xattrs else None, None,
        )  # fmt: skip
    except BadLayer as error:
        raise BadLayer(f"the table of contents, {path[:200]!r}: {error}") from None


def _number(fields: Fields, key: str) -> int:
    value = fields.get(key, 0)
    if type(value) is int and 0 <= value <= MAX_FILE_SIZE:  # as nearly all are; a boolean is not a number
        return value
    if value is None:
        return 0
    raise BadLayer(f"{key} is {str(value)[:40]!a}")


def _owner(fields: Fields, key: str) -> int:
    value = fields.get(key, 0)
    return owner_of(value) if type(value) is int else _number(fields, key)


def _name(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadLayer("a name is not a string")
    if _LOST in text:
        raise Unsupported("the table of contents cannot tell a name that is no UTF-8")
    try:
        name = text.encode()
    except UnicodeEncodeError:
        raise BadLayer(f"no encoder takes the name {text[:80]!a}") from None
    if b"\0" in name:
        raise BadLayer(f"a name with a NUL: {name[:100]!r}")
    return name


def modified_ns(text: object) -> int:
    """Return the time *text*, 1970 where there is none. Raises BadLayer."""
    if text is None or text == "":
        return 0
    found = _date_ns(text) if isinstance(text, str) else None
    if found is None:
        raise BadLayer(f"{str(text)[:40]!a} is not a time")
    return found


# Few times make up an image.
_date_ns = lru_cache(maxsize=4096)(exact_date_ns)


def _xattrs(values: object) -> dict[bytes, bytes] | None:
    """Return the extended attributes, whose values are base64, those left out that an ingest would leave out too."""
    if not isinstance(values, dict):
        raise BadLayer("its extended attributes are not an object")
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
