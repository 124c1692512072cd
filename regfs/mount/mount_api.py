"""Mounting by the mount API that Linux has since 5.2: fsopen(2), fsconfig(2), fsmount(2), move_mount(2).

Unlike mount(2), it takes any number of options, says in words why it refuses one, and makes a mount that is nowhere
until it is complete: a process that is killed before it attaches its mount leaves nothing. A path may be
`/proc/self/fd/N`, so that exactly what was opened and checked is mounted. glibc has no names for these calls before
2.36, and their numbers are the same on all architectures but alpha.

Used by export/erofs/mounting.py and export/container/. Any thread; blocks on the disk alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from contextlib import suppress

from regfs.errors import MountFailure

_PIVOT_ROOT = {"x86_64": 155, "i686": 217, "armv7l": 218, "ppc64le": 203, "s390x": 217}
_PIVOT_ROOT_ELSEWHERE = 41  # include/uapi/asm-generic/unistd.h
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_FROM_EMPTY_PATH = 4
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_CLONE_TREE = 1
_PRIVATE = 1 << 18
_MNT_DETACH = 2
_MOUNT_ATTR = struct.Struct("<QQQQ")  # attributes to set, to clear, propagation, user namespace
_ID_MAPPED = 0x100000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
"""Attributes of a mount: MOUNT_ATTR_RDONLY, _NOSUID, _NODEV and _NOEXEC of include/uapi/linux/mount.h."""
VALUE_MAX = 255
"""Bytes that the value of an option may have."""
_MESSAGE_SIZE = 4096


class Refused(OSError):
    """The kernel refuses; `strerror` is what it says about that."""


def make_mount(kind: str, options: Iterable[tuple[str, str | None]], *, attributes: int) -> int:
    """Return a descriptor of a new mount of the file system *kind* that is attached nowhere; close() removes it.

    *options* are pairs of name and value, None for one without a value. Raises Refused.
    """
    context = _call(_FSOPEN, kind.encode(), ctypes.c_uint(_CLOEXEC))
    try:
        for name, value in options:
            if value is None:
                _call(_FSCONFIG, context, ctypes.c_uint(_SET_FLAG), name.encode(), None, 0)
            else:
                _call(_FSCONFIG, context, ctypes.c_uint(_SET_STRING), name.encode(), os.fsencode(value), 0)
        _call(_FSCONFIG, context, ctypes.c_uint(_CREATE), None, None, 0)
        return _call(_FSMOUNT, context, ctypes.c_uint(_CLOEXEC), ctypes.c_uint(attributes))
    except Refused as error:
        said = _messages(context)
        raise Refused(error.errno, f"{error.strerror}{f' ({said})' if said else ''}") from None
    finally:
        os.close(context)


def attach(mount: int, path: str) -> None:
    """Put the mount *mount* on the directory *path*. Raises Refused."""
    _call(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(path), ctypes.c_uint(_FROM_EMPTY_PATH))


def map_ids(mount: int, user_namespace: int) -> None:
    """Let the mount *mount*, attached nowhere yet, show user and group ids as *user_namespace* maps them.

    An id of the file system stands for the same one inside the namespace: what root owns is its root's. An id without
    a place in it is shown as the overflow id, 65534. Raises Refused. Source: mount_setattr(2), MOUNT_ATTR_IDMAP.
    """
    packed = _MOUNT_ATTR.pack(_ID_MAPPED, 0, 0, user_namespace)
    _call(_MOUNT_SETATTR, mount, b"", ctypes.c_uint(_AT_EMPTY_PATH), packed, ctypes.c_size_t(len(packed)))


def open_tree(path: str) -> int:
    """Return a descriptor of a copy of what is at *path*, with all mounts below it, that is attached nowhere.

    *path* may be a file. Raises Refused.
    """
    flags = _CLONE_TREE | _AT_RECURSIVE | os.O_CLOEXEC
    return _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags))


def make_read_only(tree: int) -> None:
    """Make the mounts of *tree*, a result of open_tree(), read-only. Raises Refused."""
    packed = _MOUNT_ATTR.pack(READ_ONLY, 0, 0, 0)
    flags = ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE)
    _call(_MOUNT_SETATTR, tree, b"", flags, packed, ctypes.c_size_t(len(packed)))


def keep_mounts_private() -> None:
    """Stop the propagation of mounts between this mount namespace and others, both ways.

    Raises Refused; MountFailure where the root directory is no mount point.
    """
    packed = _MOUNT_ATTR.pack(0, 0, _PRIVATE, 0)
    try:
        _call(_MOUNT_SETATTR, _AT_FDCWD, b"/", ctypes.c_uint(_AT_RECURSIVE), packed, ctypes.c_size_t(len(packed)))
    except Refused as error:
        if error.errno != errno.EINVAL:
            raise
        raise MountFailure(
            "this is a chroot whose root directory is no mount point, so that no new root can be mounted in it: before "
            "chroot DIR, mount --bind DIR DIR; or systemd-nspawn -D DIR"
        ) from None


def change_root(directory: str) -> None:
    """Make the mount on *directory* the root of this mount namespace, and unmount the former root. Raises OSError.

    Source: pivot_root(2), "pivot_root(".", ".")".
    """
    os.chdir(directory)
    _call(_PIVOT_ROOT.get(os.uname().machine, _PIVOT_ROOT_ELSEWHERE), b".", b".")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(b".", _MNT_DETACH) != 0:
        raise Refused(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.chdir("/")


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise Refused(error, os.strerror(error))
    return int(result)


def _messages(context: int) -> str:
    """Return what the kernel logged for this context; each line begins with `e ` for an error, `w ` or `i `."""
    lines = []
    with suppress(OSError):  # ENODATA: that was all
        while True:
            lines.append(os.read(context, _MESSAGE_SIZE).decode(errors="replace").strip()[2:])
    return "; ".join(lines)
