"""Writes large files past the page cache, where the kernel can.

A layer of a gigabyte is written whole, and little of it is read soon. In the page cache it would evict what other
programs use, and on a virtual machine that takes its memory from the host page by page (fresh pages of the page cache:
4 us each, 5 s for 1.2 GB) it would be the slowest part of the ingest. O_DIRECT needs memory aligned to pages;
RWF_DONTCACHE (Linux 6.14, pwritev2(2)) takes any memory, begins to write at once and frees the pages once they are on
the disk. Where the kernel has neither, writes go through the page cache.

Used by data_writer.py. One thread.
"""

from __future__ import annotations

import errno
import fcntl
import os

RWF_DONTCACHE = 0x80
"""Of include/uapi/linux/fs.h; Python has no name for it."""

KEPT = 32 << 20
"""So many bytes of a layer stay in memory: a small image will be run as soon as it is here."""

_ALIGNED = 4096
_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class UncachedWrites:
    """Writes to the file *fd*; its bytes below *kept* go through the page cache as usual."""

    def __init__(self, fd: int, *, kept: int = KEPT) -> None:
        self._fd = fd
        self._kept = kept
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        self._is_direct = False
        self._may_be_direct = self._may_be_uncached = True

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of *view* at *offset*. Raises OSError."""
        while view:
            written = self._write(view, offset)
            offset += written
            view = view[written:]

    def _write(self, view: memoryview, offset: int) -> int:
        if offset < self._kept:
            return os.pwrite(self._fd, view[: self._kept - offset], offset)
        if self._may_be_direct and not offset % _ALIGNED and len(view) >= _ALIGNED:
            try:
                self._set_direct(True)
                return os.pwrite(self._fd, view[: len(view) & -_ALIGNED], offset)
            except OSError as error:  # memory or a file system that O_DIRECT cannot use
                if error.errno not in _CANNOT:
                    raise
            self._may_be_direct = False
        self._set_direct(False)
        return self._write_past(view, offset)

    def _write_past(self, view: memoryview, offset: int) -> int:
        if self._may_be_uncached:
            try:
                return os.pwritev(self._fd, [view], offset, RWF_DONTCACHE)
            except (AttributeError, NotImplementedError):
                pass  # a C library without pwritev2(2), musl for example
            except OSError as error:
                # An older kernel, or a file system that has no such writes (tmpfs, overlayfs).
                if error.errno not in _CANNOT:
                    raise
            self._may_be_uncached = False
        return os.pwrite(self._fd, view, offset)

    def _set_direct(self, is_direct: bool) -> None:
        if is_direct != self._is_direct:
            flags = self._flags | os.O_DIRECT if is_direct else self._flags
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags)
            self._is_direct = is_direct
