"""Reads plain entries of an archive, which nearly all are, in one loop over a block: header, attributes, row.

A plain entry is a regular file, a directory or a symbolic link with no extended header, all of whose header is in the
block, in a directory that is known, under a name that is new. What repeats (owners, modes, times, sizes, checksums) is
looked up instead of parsed again. Any other entry is left to tar_reader.py and archive_rows.py, which would read plain
ones too and come to the same rows; tests hold one against the other. Used by ingest.py; one thread.
"""

from __future__ import annotations

import stat
import struct
from zlib import adler32

from regfs.errors import BadLayer
from regfs.layers.rows.archive_rows import DIRECTORY, FILE, SYMLINK, ArchiveRows
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.paths import PATH_MAX
from regfs.layers.tar.tar_header import BLOCK, number
from regfs.layers.tar.tar_reader import TarReader
from regfs.model.attributes import Attributes, with_size

# name, mode + owner + group, size, mtime, checksum, type, link, magic, prefix, trailer
_FIELDS = struct.Struct("100s24s12s12s8sc100s8s80x155s8x4s")
_USTAR, _STAR_TRAILER = b"ustar\0", b"tar\0"
_KINDS = {
    b"0": (FILE, stat.S_IFREG, 1),
    b"5": (DIRECTORY, stat.S_IFDIR, 2),
    b"2": (SYMLINK, stat.S_IFLNK, 1),
}
_DIRECTORY_SIZE = 4096
_LINK_MODE = 0o777
_MAX_ID = (1 << 32) - 2
_SPACES = 8 * ord(" ")
_MOST_REMEMBERED = 1 << 13


class PlainEntries:
    """Reads plain entries from *feed*, which *reader* reads the others from, into *tree*."""

    def __init__(self, feed: ByteFeed, reader: TarReader, tree: ArchiveRows) -> None:
        self._feed = feed
        self._reader = reader
        self._tree = tree
        self._checksums: dict[bytes, int] = {}
        self._sizes: dict[bytes, int] = {}
        self._attributes: dict[tuple[bytes, bytes, bytes], bytes] = {}

    def read(self) -> int:
        """Read the plain entries that come next, up to any other or the end of the block; return how many."""
        feed, count = self._feed, 0
        if not self._reader.is_at_plain_header:
            return 0
        block, at = feed.block, feed.at
        passed, last = feed.offset - at, len(block) - BLOCK
        while at <= last:
            fields = _FIELDS.unpack_from(block, at)
            size = self._take(fields, adler32(block[at : at + BLOCK]) & 0xFFFF, passed + at + BLOCK)
            if size < 0:
                break
            count += 1
            at += BLOCK
            if size:
                end = at + size + -size % BLOCK
                if end > last:
                    self._reader.skip_later(size)
                    break
                at = end
        feed.at = at
        return count

    def _take(self, fields: tuple[bytes, ...], checksum: int, content: int) -> int:
        """Add one entry whose content begins at *content*; return its size in the archive, -1 where it is not plain.

        *checksum* is the lower half of the header's adler32: the sum of its bytes, and one.
        """
        name, owner, size_field, mtime, checksum_field, kind, link, magic, prefix, trailer = fields
        known = _KINDS.get(kind)
        if known is None or self._checksum(checksum_field) != checksum:
            return -1
        state = known[0]
        attributes = self._attributes.get((kind, owner, mtime)) or self._new_attributes(kind, owner, mtime)
        path = name.partition(b"\0")[0]
        if magic[:6] == _USTAR and prefix[0]:
            if trailer == _STAR_TRAILER:
                return -1
            path = prefix.partition(b"\0")[0] + b"/" + path
        if not attributes:
            return -1
        if state == FILE:
            size = self._sizes.get(size_field, -1)
            if size < 0 and (size := self._new_size(size_field)) < 0:
                return -1
            is_new = self._tree.add_new(path, state, with_size(attributes, size), content=content if size else None)
            return size if is_new else -1
        if state == DIRECTORY:
            return 0 if self._tree.add_new(path[:-1] if path[-1:] == b"/" else path, state, attributes) else -1
        target = link.partition(b"\0")[0]
        if not 0 < len(target) < PATH_MAX:
            return -1
        return 0 if self._tree.add_new(path, state, with_size(attributes, len(target)), target=target) else -1

    def _checksum(self, field: bytes) -> int:
        """Return what the lower half of the adler32 is of a header with that checksum."""
        found = self._checksums.get(field)
        if found is None:
            _bound(self._checksums)
            value = _plain_number(field)
            found = self._checksums[field] = value + sum(field) - _SPACES + 1 if value >= 0 else -1
        return found

    def _new_size(self, field: bytes) -> int:
        _bound(self._sizes)
        size = self._sizes[field] = _plain_number(field)
        return size

    def _new_attributes(self, kind: bytes, owner: bytes, mtime: bytes) -> bytes:
        """Return the attributes of entries of that kind, owner and time; b"" where the fields are not plain ones."""
        _bound(self._attributes)
        mode, uid, gid, seconds = map(_plain_number, (owner[:8], owner[8:16], owner[16:], mtime))
        attributes = b""
        if mode >= 0 and 0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID and seconds >= 0:
            _, type_bits, nlink = _KINDS[kind]
            mode = _LINK_MODE if type_bits == stat.S_IFLNK else mode & 0o7777
            size = _DIRECTORY_SIZE if type_bits == stat.S_IFDIR else 0
            attributes = Attributes(type_bits | mode, size, nlink, uid, gid, 0, seconds * 1_000_000_000).pack()
        self._attributes[kind, owner, mtime] = attributes
        return attributes


def _plain_number(field: bytes) -> int:
    """Return the octal number in *field*, -1 where it is stored in another way."""
    if field[0] & 0x80:
        return -1
    try:
        return number(field)
    except BadLayer:
        return -1


def _bound(remembered: dict[bytes, int] | dict[tuple[bytes, bytes, bytes], bytes]) -> None:
    if len(remembered) >= _MOST_REMEMBERED:
        remembered.clear()
