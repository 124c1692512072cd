"""The 88 bytes of struct fuse_attr as fields of fusepy's c_stat. Used by adapter.py. Pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from regfs.mount.kernel.abi import mode_of

if TYPE_CHECKING:
    from typing import Any

_ATTRIBUTES = struct.Struct("<QQQqqqIIIIIIIIII")


def fill_stat(stat: Any, attributes: bytes) -> None:
    """Put *attributes* into *stat*, a fuse.c_stat."""
    (
        stat.st_ino, stat.st_size, stat.st_blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns,
        stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, stat.st_rdev, stat.st_blksize, _,
    ) = _ATTRIBUTES.unpack(attributes)  # fmt: skip
    for field, seconds, nanoseconds in (
        (stat.st_atimespec, atime, atime_ns),
        (stat.st_mtimespec, mtime, mtime_ns),
        (stat.st_ctimespec, ctime, ctime_ns),
    ):
        field.tv_sec, field.tv_nsec = seconds, nanoseconds


def inode_and_mode(attributes: bytes) -> tuple[int, int]:
    """Return st_ino and st_mode."""
    return int.from_bytes(attributes[:8], "little"), mode_of(attributes)
