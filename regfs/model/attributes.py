"""File attributes in the layout of the kernel's struct fuse_attr.

The layout is struct fuse_attr of the kernel's include/uapi/linux/fuse.h without its first field, the inode number,
which depends on the mount while everything else is a property of the image. 80 bytes, little-endian:

    u64 size, blocks, atime, mtime, ctime      40   (seconds; signed where before 1970)
    u32 atimensec, mtimensec, ctimensec        12
    u32 mode, nlink, uid, gid, rdev            20
    u32 blksize, flags                          8

Indexes keep these 80 bytes as they are, so that a directory's answer is a concatenation. Pure; any thread.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

_PACKED = struct.Struct("<QQqqqIIIIIIIIII")
_SIZES = struct.Struct("<QQ")
_MODE = struct.Struct("<I")
_CTIME_AT, _CTIME_NS_AT = 32, 48
_NLINK_AT = 56
_MODE_AT = 52
_BLOCK_SIZE = 4096
_S = 1_000_000_000

TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
    stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}  # fmt: skip
"""The names of the types of files in results."""


class Attributes(NamedTuple):
    """What stat(2) returns for one entry, without its inode number. *rdev* is Linux's 32-bit device number."""

    mode: int
    size: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    mtime_ns: int = 0

    def pack(self) -> bytes:
        """Return the 80 packed bytes; access and change time are the modification time."""
        seconds, nanoseconds = divmod(self.mtime_ns, _S)
        return _PACKED.pack(
            self.size, (self.size + 511) // 512, seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
            self.mode, self.nlink, self.uid, self.gid, self.rdev, _BLOCK_SIZE, 0,
        )  # fmt: skip

    @classmethod
    def unpack(cls, packed: bytes) -> Attributes:
        """Return the attributes in *packed* (80 bytes)."""
        size, _, _, seconds, _, _, nanoseconds, _, mode, nlink, uid, gid, rdev, _, _ = _PACKED.unpack(packed)
        return cls(mode, size, nlink, uid, gid, rdev, seconds * _S + nanoseconds)


def without_change_time(packed: bytes) -> bytes:
    """Return *packed* with 1970 as the time of the last change."""
    return packed[:_CTIME_AT] + bytes(8) + packed[_CTIME_AT + 8 : _CTIME_NS_AT] + bytes(4) + packed[_CTIME_NS_AT + 4 :]


def with_size(packed: bytes, size: int) -> bytes:
    """Return *packed* with another size."""
    return _SIZES.pack(size, (size + 511) >> 9) + packed[_SIZES.size :]


def without_size(packed: bytes) -> bytes:
    """Return *packed* without its size, for with_sizes()."""
    return packed[_SIZES.size :]


def with_sizes(rests: Iterable[bytes], sizes: Iterable[int]) -> list[bytes]:
    """Return the attributes *rests*, which without_size() returned, with these *sizes*."""
    pack = _SIZES.pack
    return [pack(size, (size + 511) >> 9) + rest for size, rest in zip(sizes, rests, strict=True)]


def with_nlink(packed: bytes, nlink: int) -> bytes:
    """Return *packed* with another link count."""
    return packed[:_NLINK_AT] + _MODE.pack(nlink) + packed[_NLINK_AT + 4 :]


def mode_of(packed: bytes) -> int:
    """Return the mode, type bits included."""
    mode: int = _MODE.unpack_from(packed, _MODE_AT)[0]
    return mode


def size_of(packed: bytes) -> int:
    """Return the size in bytes."""
    return int.from_bytes(packed[:8], "little")


def is_directory(packed: bytes) -> bool:
    """Tell whether *packed* is a directory's."""
    return stat.S_ISDIR(mode_of(packed))


def device_number(major: int, minor: int) -> int:
    """Return Linux's 32-bit encoding of a device number (new_encode_dev of include/linux/kdev_t.h)."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12
