"""Reads tar archives: every dialect that images are made of, in one pass over a stream.

v7, ustar, star, GNU (long names and links, base-256 numbers, sparse files) and PAX (global headers too). Python's
tarfile is too slow for this (it keeps all members and decodes their names) and accepts what Go's reader, the one that
container engines trust, refuses. Labels of volumes are skipped. Unknown types are regular files where they have data,
as for POSIX and GNU tar (containerd and umoci refuse the layer), and are counted. An archive may end without its two
blocks of zeros; what follows them is ignored.

Names are bytes, as stored. Used by ingest.py; one thread.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from regfs.errors import BadLayer, TooLarge
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.pax import Records, parse_records, time_ns, xattrs_of
from regfs.layers.tar.tar_header import BLOCK, ZERO_BLOCK, Header, decimal, number, parse_header, text
from regfs.layers.tar.tar_sparse import Extents, check_extents, old_sparse, pax_sparse
from regfs.model.attributes import device_number

HARD_LINK = 0
"""The kind of an entry that is another name of an earlier one; every other kind is the type bits of a mode."""
MAX_EXTENDED_HEADER = 1 << 20
MAX_GLOBAL_RECORDS = 1 << 16
"""Bytes of the PAX records that hold for all entries to come: each of these looks through them."""
MAX_FILE_SIZE = (1 << 63) - 1

_S = 1_000_000_000
_MAX_TIME_NS = (1 << 62) * _S
_MAX_ID = (1 << 32) - 2
_REGULAR_IF_NO_SLASH = b"\0"
_KINDS = {
    b"0": stat.S_IFREG,
    _REGULAR_IF_NO_SLASH: stat.S_IFREG,
    b"7": stat.S_IFREG,  # contiguous
    b"S": stat.S_IFREG,  # GNU sparse
    b"1": HARD_LINK,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,  # GNU incremental: followed by a list of names
    b"6": stat.S_IFIFO,
}
# GNU tar's label of a volume, the rest of a file that begins on another volume, and its old way to tell long names.
_NO_FILES = frozenset((b"V", b"M", b"N"))
# Their size field may be set and means nothing: some writers put a link's target's size there.
_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))


class TarEntry(NamedTuple):
    """One file of an archive. *kind* is HARD_LINK or the type bits of a mode, *mode* the other bits.

    *size* is the file's real size; *extents* tells where a sparse one has its data. *rdev* is Linux's device number.
    """

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    rdev: int
    xattrs: dict[bytes, bytes] | None
    extents: Extents | None


class TarReader:
    """Reads the archive that *feed* gives."""

    def __init__(self, feed: ByteFeed) -> None:
        self.records: Records = {}
        """The PAX records that hold for the entry that came last."""
        self.header: Header | None = None
        """The header of that entry, as it is stored."""
        self._feed = feed
        self._left = 0
        self._padding = 0
        self._global: Records = {}
        self._global_size = 0
        self._unknown = 0
        self._first_unknown = ""

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield the entries, as next_entry() returns them."""
        while (entry := self.next_entry()) is not None:
            yield entry

    @property
    def is_at_plain_header(self) -> bool:
        """Skip what is left of the last entry; tell whether a header follows in this block of the feed.

        False too where global PAX records change what headers mean.
        """
        if self._global:
            return False
        rest = self._left + self._padding
        if self._feed.at + rest >= len(self._feed.block):
            return False
        self._feed.at += rest
        self._left = self._padding = 0
        return True

    def skip_later(self, size: int) -> None:
        """Let the next entry begin after the content of *size* bytes that comes now."""
        self._left, self._padding = size, -size % BLOCK

    def next_entry(self) -> TarEntry | None:
        """Return the next entry, None at the end; content that was not taken is skipped.

        Raises BadLayer, TooLarge.
        """
        while (header := self._next_header()) is not None:
            records: Records = self._global
            name = link = None
            while header.type in b"xXgLK":
                payload = self._payload(header)
                if header.type == b"g":
                    self._add_global(payload)
                    records = self._global | records
                elif header.type == b"L":
                    name = text(payload)
                elif header.type == b"K":
                    link = text(payload)
                else:
                    records = self._global | parse_records(payload)
                header = self._next_header()
                if header is None:
                    raise BadLayer("the archive ends between an extended header and its entry")
            if header.type not in _KINDS:
                if header.type not in _NO_FILES:
                    self._note_unknown(header.type, name or records.get(b"path") or header.name)
                if header.type in _NO_FILES or not header.size:
                    self._left, self._padding = header.size, -header.size % BLOCK
                    continue
                header = header._replace(type=b"0")
            self.records, self.header = records, header
            return self._entry(header, records, name, link)
        return None

    def content(self) -> Iterator[memoryview]:
        """Yield what is stored of the entry, in views that are valid until the next. Raises BadLayer."""
        size, self._left = self._left, 0
        return self._feed.spans(size)

    def _next_header(self) -> Header | None:
        """Return the next header, None at the archive's end."""
        feed = self._feed
        if self._left or self._padding:
            feed.skip(self._left)
            # Some archives leave out what fills up the last block.
            feed.take_or_end(self._padding)
            self._left = self._padding = 0
        block = feed.take_or_end(BLOCK)
        if block == ZERO_BLOCK:
            second = feed.take_or_end(BLOCK)
            if second and second != ZERO_BLOCK[: len(second)]:
                raise BadLayer(f"a single block of zeros at byte {feed.offset} is followed by something else")
            return None
        if not block:
            return None
        if len(block) < BLOCK:
            raise BadLayer(f"the archive ends within a header, at byte {feed.offset}")
        try:
            header = parse_header(block)
        except BadLayer as error:
            raise BadLayer(f"at byte {feed.offset - BLOCK}: {error}") from None
        if not 0 <= header.size <= MAX_FILE_SIZE:
            raise BadLayer(f"an entry at byte {feed.offset - BLOCK} claims a size of {header.size} bytes")
        return header

    def _payload(self, header: Header) -> bytes:
        if header.size > MAX_EXTENDED_HEADER:
            raise TooLarge(f"an extended tar header of {header.size} bytes; regfs reads up to {MAX_EXTENDED_HEADER}")
        payload = self._feed.take(header.size)
        self._feed.skip(-header.size % BLOCK)
        return payload

    def _note_unknown(self, kind: bytes, path: bytes) -> None:
        self._unknown += 1
        self._first_unknown = self._first_unknown or f"{path[:300]!r} of type {kind!r}"

    @property
    def has_global_records(self) -> bool:
        """Whether a header before the entry's own has fields of the entry."""
        return bool(self._global)

    @property
    def remark(self) -> str:
        """A text about what was odd in the archive so far and was read all the same; "" if nothing was."""
        if not self._unknown:
            return ""
        return (
            f"{self._unknown} tar entries of an unknown type, the first of them {self._first_unknown};"
            " those with data are shown as regular files, those without are left out"
        )

    def _add_global(self, payload: bytes) -> None:
        """Add records that apply to all following entries."""
        self._global.update(parse_records(payload))
        self._global_size += len(payload)
        if self._global_size > MAX_GLOBAL_RECORDS:
            # Keys that came again are counted once, but only looked for now and then.
            self._global_size = sum(len(key) + len(value) for key, value in self._global.items())
            if self._global_size > MAX_GLOBAL_RECORDS // 2:
                raise TooLarge(f"global PAX headers of more than {MAX_GLOBAL_RECORDS // 2} bytes")

    def _entry(self, header: Header, records: Records, name: bytes | None, link: bytes | None) -> TarEntry:
        size, uid, gid, mtime_ns = header.size, header.uid, header.gid, header.mtime * _S
        path, target, xattrs = header.name, header.link, None
        if records:
            path = records.get(b"GNU.sparse.name") or records.get(b"path") or path
            target = records.get(b"linkpath") or target
            size = decimal(records[b"size"]) if records.get(b"size") else size
            uid = _signed(records[b"uid"]) if records.get(b"uid") else uid
            gid = _signed(records[b"gid"]) if records.get(b"gid") else gid
            mtime_ns = time_ns(records[b"mtime"]) if records.get(b"mtime") else mtime_ns
            xattrs = xattrs_of(records)
            if b"\0" in path or b"\0" in target:
                raise BadLayer(f"{path[:100]!r}: a name with a NUL")
        path, target = name or path, link or target
        kind = _KINDS[header.type]
        if header.type == _REGULAR_IF_NO_SLASH and path.endswith(b"/"):
            kind = stat.S_IFDIR
        if not -_MAX_TIME_NS < mtime_ns < _MAX_TIME_NS:
            raise BadLayer(f"{path[:100]!r}: {mtime_ns // _S} is not a time")
        if not 0 <= uid <= _MAX_ID or not 0 <= gid <= _MAX_ID:
            uid, gid = owner_of(uid), owner_of(gid)
        size, extents = self._begin_content(header, records, size)
        rdev = _device(header) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        return TarEntry(
            path, kind, header.mode & 0o7777, uid, gid, size if kind == stat.S_IFREG else 0,
            mtime_ns, target, rdev, xattrs, extents,
        )  # fmt: skip

    def _begin_content(self, header: Header, records: Records, stored: int) -> tuple[int, Extents | None]:
        """Note what is stored after the header; return the file's real size, and its extents if it is sparse."""
        if header.type in _WITHOUT_CONTENT:
            return 0, None
        if stored > MAX_FILE_SIZE:
            raise BadLayer(f"an entry claims a size of {stored} bytes")
        size, extents, left = stored, None, stored
        if header.type == b"S":
            size, extents = old_sparse(header, self._feed)
        elif records and (found := pax_sparse(records, self._feed, stored)) is not None:
            size, extents, taken = found
            left = stored - taken
        if extents is not None:
            if not 0 <= size <= MAX_FILE_SIZE:
                raise BadLayer(f"a sparse file claims a size of {size} bytes")
            check_extents(extents, size=size, stored=left)
        self._left, self._padding = left, -stored % BLOCK
        return size, extents


def _signed(digits: bytes) -> int:
    return -decimal(digits[1:]) if digits.startswith(b"-") else decimal(digits)


def owner_of(value: int) -> int:
    """Return a user or group as Linux takes it: old writers stored the user `nobody` as -2; -1 means to change nothing.

    Raises BadLayer.
    """
    if value == -1:
        return 0
    if not -(1 << 31) <= value <= _MAX_ID:
        raise BadLayer(f"{value} is not a user or group")
    return value & 0xFFFFFFFF


def _device(header: Header) -> int:
    major, minor = number(header.major), number(header.minor)
    if major < 0 or minor < 0:
        raise BadLayer(f"{major}:{minor} is not a device")
    return device_number(major, minor)
