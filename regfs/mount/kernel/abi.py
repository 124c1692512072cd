"""The kernel's FUSE protocol in bytes: numbers, structs, packing and unpacking. No I/O.

Source: the kernel's include/uapi/linux/fuse.h, protocol 7.31 (Linux 5.4) to 7.45; names are its names without FUSE_.
All is little-endian, as on every machine that regfs runs on. Used by all modules here. Pure; any thread.

    request   in_header 40 (u32 len, opcode; u64 unique, nodeid; u32 uid, gid, pid; u16 total_extlen, padding) + body
    answer    out_header 16 (u32 len; i32 error, negative errno; u64 unique) + body, nothing where there is an error
    notification  out_header with unique 0 and the code of the notification in place of error, + body
    entry     entry_out 40 (u64 nodeid, generation, entry_valid, attr_valid; u32 their nanoseconds) + attributes 88
    direntry  dirent 24 (u64 ino, off; u32 namelen, type) + name, padded with zeros to 8 bytes
    plus      entry 128 + direntry
"""

from __future__ import annotations

import errno
import math
import struct
from enum import IntEnum
from typing import NamedTuple

MAJOR = 7
MINOR = 45
OLDEST_MINOR = 31
ROOT = 1


class Opcode(IntEnum):
    """The requests of the kernel."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


def name_of(opcode: int) -> str:
    """Return the name of a request, for messages."""
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"request {opcode}"


WRITING = frozenset({
    Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME,
    Opcode.LINK, Opcode.WRITE, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.CREATE, Opcode.FALLOCATE, Opcode.RENAME2,
    Opcode.COPY_FILE_RANGE, Opcode.TMPFILE, Opcode.COPY_FILE_RANGE_64,
})  # fmt: skip

# INIT flags (of flags | flags2 << 32)
ASYNC_READ = 1 << 0  # several reads of one file may be under way
DO_READDIRPLUS = 1 << 13
PARALLEL_DIROPS = 1 << 18
ABORT_ERROR = 1 << 21  # a read of an aborted connection says ECONNABORTED instead of ENODEV
MAX_PAGES = 1 << 22  # init_out.max_pages holds
CACHE_SYMLINKS = 1 << 23
INIT_EXT = 1 << 30  # flags2 holds
HAS_EXPIRE_ONLY = 1 << 35  # INVAL_ENTRY may let a name expire instead of dropping it
PASSTHROUGH = 1 << 37
ALLOW_IDMAP = 1 << 40  # a mount may be cloned with mapped owners; an error without default_permissions (Linux 6.12)

# open_out.open_flags
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_NOFLUSH = 1 << 5
FOPEN_PASSTHROUGH = 1 << 7

# Notifications: out_header.error where unique is 0
NOTIFY_INVAL_INODE = 2
NOTIFY_INVAL_ENTRY = 3
NOTIFY_STORE = 4
EXPIRE_ONLY = 1 << 0

IOC_BACKING_OPEN = 0x4010E501
IOC_BACKING_CLOSE = 0x4004E502

GONE = (errno.ENODEV, errno.ECONNABORTED, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN, errno.EPIPE)
"""The errnos of reads and writes after the end of the connection."""

PAGE_SIZE = 4096

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
ENTRY_HEAD = struct.Struct("<QQQQII")
ATTRIBUTES_HEAD = struct.Struct("<QII")
OPEN_IN = struct.Struct("<II")
OPEN_OUT = struct.Struct("<QIi")
READ_IN = struct.Struct("<QQI")  # the first three of fuse_read_in: fh, offset, size
RELEASE_IN = struct.Struct("<Q")  # the first of fuse_release_in: fh
XATTR_IN = struct.Struct("<II")
XATTR_OUT = struct.Struct("<II")
ACCESS_IN = struct.Struct("<II")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
INTERRUPT_IN = struct.Struct("<Q")
FORGET_IN = struct.Struct("<Q")
BATCH_FORGET_IN = struct.Struct("<II")
FORGET_ONE = struct.Struct("<QQ")
INVAL_INODE_OUT = struct.Struct("<Qqq")
INVAL_ENTRY_OUT = struct.Struct("<QII")
STORE_OUT = struct.Struct("<QQII")
BACKING_MAP = struct.Struct("<iIQ")
BACKING_ID = struct.Struct("<I")

# A dirent and an entry with it. "8s" of the 88 bytes of attributes takes the first eight: the inode number.
DIRENT = struct.Struct("<8sQII")
PLUS_HEAD = struct.Struct("<QQQQII88s8sQII")
NODE = struct.Struct("<Q")
NAME_LENGTH = struct.Struct("<I")
NAME_PADDING = tuple(bytes(-size % 8) for size in range(8))
# Where the four type bits of the mode are in 88 bytes of attributes: `attributes[TYPE_AT] >> 4`.
TYPE_AT = 61
DT_DIRECTORY = 4
NO_ATTRIBUTES = bytes(88)

# Seconds: the kernel takes a time of more than a few hundred million years for "never".
FOR_EVER = (1 << 62, 0)
_ENTRY_FOR_EVER = ENTRY_HEAD.pack(0, 0, FOR_EVER[0], FOR_EVER[0], 0, 0)[8:]
_ATTRIBUTES_FOR_EVER = ATTRIBUTES_HEAD.pack(*FOR_EVER, 0)


def mode_of(attributes: bytes) -> int:
    """Return st_mode of 88 bytes of attributes."""
    return int.from_bytes(attributes[60:64], "little")


def valid_for(seconds: float) -> tuple[int, int]:
    """Return *seconds* (inf: for ever; negative counts as 0) as whole seconds and nanoseconds."""
    if seconds == math.inf:
        return FOR_EVER
    if not seconds > 0:
        return 0, 0
    whole = int(seconds)
    return whole, int((seconds - whole) * 1e9)


def pack_entry(node: int, attributes: bytes, valid_s: float, generation: int = 0) -> bytes:
    """Return the answer to LOOKUP. *node* 0 and empty attributes: the kernel may remember that the name is missing."""
    if valid_s == math.inf and not generation:
        return node.to_bytes(8, "little") + _ENTRY_FOR_EVER + (attributes or NO_ATTRIBUTES)
    whole, nanoseconds = valid_for(valid_s)
    return ENTRY_HEAD.pack(node, generation, whole, whole, nanoseconds, nanoseconds) + (attributes or NO_ATTRIBUTES)


def pack_attributes(attributes: bytes, valid_s: float) -> bytes:
    """Return the answer to GETATTR."""
    if valid_s == math.inf:
        return _ATTRIBUTES_FOR_EVER + attributes
    return ATTRIBUTES_HEAD.pack(*valid_for(valid_s), 0) + attributes


def pack_error(unique: int, number: int) -> bytes:
    """Return the answer with the errno *number*, which is positive; 0 means success without a body."""
    return OUT_HEADER.pack(16, -number, unique)


def pack_expire_entry(parent: int, name: bytes) -> bytes:
    """Return the notification that *name* in *parent* must be looked up again. Processes below it stay there.

    Only if HAS_EXPIRE_ONLY was negotiated: an older kernel would drop the name and all below it.
    """
    body = INVAL_ENTRY_OUT.pack(parent, len(name), EXPIRE_ONLY) + name + b"\0"
    return OUT_HEADER.pack(16 + len(body), NOTIFY_INVAL_ENTRY, 0) + body


def pack_inval_inode(node: int, offset: int, size: int) -> bytes:
    """Return the notification that attributes and bytes [offset, offset + size) of *node* are stale.

    Size 0 means to the end of the file; offset -1 means the attributes alone.
    """
    return OUT_HEADER.pack(40, NOTIFY_INVAL_INODE, 0) + INVAL_INODE_OUT.pack(node, offset, size)


def pack_store_head(node: int, offset: int, size: int) -> bytes:
    """Return the head of the notification "these *size* bytes are at *offset* of *node*"; the bytes follow."""
    return OUT_HEADER.pack(40 + size, NOTIFY_STORE, 0) + STORE_OUT.pack(node, offset, size, 0)


class Offer(NamedTuple):
    """The kernel's INIT: its version, its read-ahead, and the flags that it offers."""

    major: int
    minor: int
    max_readahead: int
    flags: int


def parse_init(body: bytes) -> Offer:
    """Return what the kernel offers; the second half of the flags is there since 7.36. struct.error if it is short."""
    major, minor, max_readahead, flags = INIT_IN.unpack_from(body)
    if flags & INIT_EXT and len(body) >= 20:
        flags |= int.from_bytes(body[16:20], "little") << 32
    return Offer(major, minor, max_readahead, flags)


def pack_init(
    minor: int, flags: int, *, max_readahead: int, max_background: int, max_pages: int, stack_depth: int
) -> bytes:
    """Return the answer to INIT, 64 bytes. No write is accepted, so max_write is the least possible."""
    return INIT_OUT.pack(
        MAJOR, minor, max_readahead, flags & 0xFFFFFFFF, max_background, max_background * 3 // 4, PAGE_SIZE, 1,
        max_pages, 0, flags >> 32, stack_depth, 0,
    )  # fmt: skip
