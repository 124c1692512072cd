"""The images of the cache that the kernel has mounted by itself, and the layers that these are made of.

    images/<chain id>.erofs      names and inodes; its devices are the data files of the layers (export/erofs/)

Such a mount has no process. The kernel holds its files open, in any mount namespace, also after `umount --lazy` while a
process is in it: evicting them would free no room. A lease tells whether a file is held: the kernel grants a write
lease only where nothing else has the file open (fcntl(2), F_SETLEASE). So there is no marker that a crash, or an
unmount by other means, could leave behind.

Used by in_use.py. Thread rule: functions; any thread.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

from regfs.store.eviction.inventory import EROFS, IMAGES, INDEX, LAYERS, MERGED

log = logging.getLogger(__name__)

_F_SETSIG = 10  # include/uapi/asm-generic/fcntl.h
# Of an EROFS image: the magic; at byte 86 of the superblock the number of devices, and the first one's slot.
_SUPERBLOCK_AT = 1024
_MAGIC = 0xE0F5E1E2
_HEAD = struct.Struct("<I82xHH")
_SLOT = 128
_TAG = 64


def used_by_kernel_mounts(root: Path) -> frozenset[str]:
    """Return what the kernel's mounts use of the cache at *root*: names of merged tables and of layers' indexes.

    Takes some 10 us for each image that was ever mounted. Raises OSError.
    """
    return frozenset(name for path in (root / IMAGES).glob(f"*{EROFS}") for name in _used_by(path))


def layers_of(fd: int) -> list[str]:
    """Return the names of the layers that the image *fd* is made of, base first; none where regfs has not made it."""
    head = os.pread(fd, _HEAD.size, _SUPERBLOCK_AT)
    if len(head) < _HEAD.size:
        return []
    magic, devices, first_slot = _HEAD.unpack(head)
    if magic != _MAGIC:
        return []
    slots = os.pread(fd, devices * _SLOT, first_slot * _SLOT)
    tags = [slots[at : at + _TAG].rstrip(b"\0") for at in range(0, len(slots), _SLOT)]
    return [tag.decode(errors="replace") for tag in tags if tag]


def _used_by(path: Path) -> Iterator[str]:
    """Yield what the kernel's mounts of the image at *path* use, if there are any."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # gone, or another process is asking just now
    try:
        if _is_open_elsewhere(fd):
            yield f"{IMAGES}/{path.stem}{MERGED}"
            yield from (f"{LAYERS}/{layer}{INDEX}" for layer in layers_of(fd))
    finally:
        os.close(fd)


def _is_open_elsewhere(fd: int) -> bool:
    try:
        # A process that opens the file meanwhile would have SIGIO sent to this one, which ends it; SIGURG is ignored.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            return True
        log.debug("whether a mount uses a file is unknown: %s", error)  # another user's, or a disk without leases
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
