"""One tar header block: its fields, its numbers, its checksum.

    name 100, mode 8, uid 8, gid 8, size 12, mtime 12, checksum 8, type 1, link 100, magic and version 8, user 32,
    group 32, major 8, minor 8, prefix 155, unused 12                                                        = 512

Sources: POSIX pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" (base-256 numbers, the magic
`ustar  `, whose prefix field means other things); star(4) (a prefix of 131 bytes). Where the field disagrees with the
standard this follows Go's archive/tar, which umoci, containerd and docker read layers with. Pure; any thread.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

from regfs.errors import BadLayer

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_CHECKSUM = slice(148, 156)
_USTAR = b"ustar\0"
_GNU = b"ustar  \0"
_STAR_TRAILER = b"tar\0"
_STAR_PREFIX = 131
_HIGH = bytes(range(128, 256))
_TERMINATORS = b"\0 "


class Header(NamedTuple):
    """A header block's fields. Numbers that few types need stay as they are stored."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    major: bytes
    minor: bytes
    is_gnu: bool
    block: bytes


def parse_header(block: bytes) -> Header:
    """Return the fields of *block* (512 bytes). Raises BadLayer where the checksum or a number is wrong."""
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, major, minor, prefix = _FIELDS.unpack(block)
    _check(block, checksum)
    name = text(name)
    if magic[:6] == _USTAR:
        if block.endswith(_STAR_TRAILER):
            prefix = prefix[:_STAR_PREFIX]
        if prefix[0]:
            name = text(prefix) + b"/" + name
    return Header(
        name, _often(mode), _often(uid), _often(gid), number(size), _often(mtime),
        kind, text(link), major, minor, magic == _GNU, block,
    )  # fmt: skip


def text(field: bytes) -> bytes:
    """Return *field* up to its first NUL, or all of it."""
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    """Return the octal or, where the first bit is set, big-endian number in *field*; 0 where it is blank.

    Raises BadLayer.
    """
    if field[:-1].isdigit() and field[-1] in _TERMINATORS and b"8" not in field and b"9" not in field:
        return int(field[:-1], 8)  # what nearly all are
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = text(field.strip(b" \0"))
    if not digits:
        return 0
    # int() alone would take signs, underscores and 0o.
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass
    raise BadLayer(f"{field!r} is not a number of a tar header")


# Few owners, modes and days make up an image.
_often = lru_cache(maxsize=4096)(number)


def decimal(digits: bytes) -> int:
    """Return the number of a PAX record or a sparse map. Raises BadLayer."""
    if digits.isdigit() and len(digits) <= 20:
        return int(digits)
    raise BadLayer(f"{digits[:40]!r} is not a number of an extended tar header")


def _check(block: bytes, checksum: bytes) -> None:
    """Raise BadLayer unless the bytes add up, taken as unsigned or, as some old writers did, as signed ones."""
    # adler32's lower half is a sum modulo 65521, ten times as fast as sum(); few headers have a greater one.
    counted = (adler32(block) & 0xFFFF) - 1 - sum(checksum) + 8 * ord(" ")
    if checksum == b"%06o\0 " % counted:  # as nearly all write it
        return
    stored = number(checksum)
    counted = sum(block) - sum(checksum) + 8 * ord(" ")
    if stored == counted:
        return
    outside = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    high = len(outside) - len(outside.translate(None, _HIGH))
    if stored != counted - 256 * high:
        raise BadLayer("this is not a tar header: its checksum is wrong")
