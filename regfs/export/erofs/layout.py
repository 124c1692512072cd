"""The byte layout of EROFS, as far as an image of names needs it. All numbers are little-endian. Pure.

    0x400       superblock, 128 bytes: SUPERBLOCK
    0x480       device slots, 128 bytes each: DEVICE_SLOT
    blocks      of 512 bytes: shared xattrs, directories, targets of links that are too long for their inode
    metadata    inodes at multiples of 32, each followed by its xattrs and by a link's target

    addresses   blocks are counted through the image and all devices: the image has the first DEVICES_BLOCK numbers,
                though it is shorter, and each device slot says where the numbers of its device begin
    inode       INODE; its number (nid) is its offset in the metadata / 32. i_format: bit 0 = extended, 1–3 = layout.
                Its bytes are from one block on, or follow it
    xattrs      XATTR_HEADER, ids of shared ones (u32), entries: XATTR_ENTRY, name without its prefix, value, zeros
                up to a multiple of 4. i_xattr_icount is (size - 12) / 4 + 1, 0 without xattrs
    directory   blocks of DIRENTs, and behind those of one block their names without terminator. The first name's
                offset / 12 is the number of entries in the block; the last name ends at a zero or with the block

Source: the kernel's fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. Used by the other modules of this
package.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
"""The size of a block: what layers' files are aligned to. The kernel takes 512 bytes since Linux 6.4."""

MAGIC = 0xE0F5E1E2
SUPERBLOCK_AT = 1024
SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
"""magic, checksum (0: none), compatible features, block bits, extension slots, root nid, inodes, epoch (seconds,
nanoseconds), blocks, first block of the metadata, first block of shared xattrs, uuid, volume name, incompatible
features, compression, devices, first device slot (in slots), directory block bits, long xattr prefixes (count, place),
packed inode."""
VOLUME_AT, VOLUME_SIZE = SUPERBLOCK_AT + 64, 16
DEVICE_SLOT = struct.Struct("<64sII56x")
"""tag, blocks, number of the first block. The kernel does not look at the tag."""
TAG_SIZE = 64
SLOTS_AT = SUPERBLOCK_AT + SUPERBLOCK.size

INODE = struct.Struct("<HHHHQIIIIQII16x")
"""i_format, xattr count, mode, 0, size, first block or rdev, number, uid, gid, mtime (seconds, nanoseconds), links."""
SLOT_BITS = 5
SLOT = 1 << SLOT_BITS
FLAT_PLAIN, FLAT_INLINE = 1 | 0 << 1, 1 | 2 << 1
"""i_format of an extended inode: with bytes from its first block on; with bytes behind it."""
DEVICES_BLOCK = 1 << 27
"""The number of the devices' first block: what is before it is for the image itself, 64 GiB."""
NO_BLOCK = 0xFFFFFFFF
"""A block number that stands for none: all blocks have smaller ones."""

COMPAT_MTIME = 2
INCOMPAT_DEVICE_TABLE = 8

XATTR_HEADER = struct.Struct("<IB7x")
"""filter of names (0: none), number of shared xattrs."""
XATTR_ENTRY = struct.Struct("<BBH")
"""length of the name without its prefix, prefix, length of the value."""
XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
XATTR_NAME_MAX, XATTR_VALUE_MAX = 255, 65535
XATTRS_MAX = XATTR_HEADER.size + 4 * 65534

DIRENT = struct.Struct("<QHBx")
"""nid, offset of the name in the block, type."""
DIRECTORY, REGULAR, LINK, CHARACTER, BLOCK_DEVICE = 0o04, 0o10, 0o12, 0o02, 0o06
"""Types of files as a mode has them, in its bits 12–15."""
DIRENT_TYPES = bytes.maketrans(bytes((0o01, 0o02, 0o04, 0o06, 0o10, 0o12, 0o14)), bytes((5, 3, 2, 4, 1, 7, 6)))
"""The type in a DIRENT by that in a mode."""

Dirent = tuple[bytes, int, int]
"""name, nid, the type in the mode."""


def blocks(size: int) -> int:
    """Return how many blocks *size* bytes take."""
    return size + BLOCK - 1 >> BLOCK_BITS


def directory_blocks(dirents: Sequence[Dirent]) -> tuple[list[bytes], int]:
    """Return the blocks of the directory *dirents*, and its size in bytes.

    *dirents* are in the order of their names' bytes, `.` and `..` in their places.
    """
    full: list[bytes] = []
    first, used = 0, 0
    for at, (name, _, _) in enumerate(dirents):
        taken = DIRENT.size + len(name)
        if used + taken > BLOCK:
            full.append(_directory_block(dirents[first:at]))
            first, used = at, 0
        used += taken
    return [*full, _directory_block(dirents[first:])], len(full) * BLOCK + used


def _directory_block(dirents: Sequence[Dirent]) -> bytes:
    pack, types = DIRENT.pack, DIRENT_TYPES
    at = DIRENT.size * len(dirents)
    parts = []
    for name, nid, kind in dirents:
        parts.append(pack(nid, at, types[kind]))
        at += len(name)
    parts.extend([name for name, _, _ in dirents])
    return b"".join(parts).ljust(BLOCK, b"\0")
