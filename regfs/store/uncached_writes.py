"""Writing much that few will read: past the page cache, where the kernel can.

A layer of a gigabyte is written whole, and little of it is read soon. In the page cache it would throw out what others
use, and where a virtual machine takes its memory from the host page by page (fresh pages of the page cache: 4 us each,
5 s for 1.2 GB), it would be the dearest part of the pass. RWF_DONTCACHE (Linux 6.14, pwritev2(2)) begins to write at
once and lets go of the pages when they are on the disk; the writer does not wait for that.

Used by layer_writer.py. One thread.
"""

from __future__ import annotations

import errno
import os

RWF_DONTCACHE = 0x80
"""Of include/uapi/linux/fs.h; Python has no name for it."""

KEPT = 32 << 20
"""So many bytes of a layer stay in memory: a small image will be run as soon as it is here."""

_HERE = -1  # at the file's own position
_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class UncachedWrites:
    """Writes the files of one layer; the first *kept* bytes of them go through the page cache as usual."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept

    def write(self, fd: int, view: memoryview) -> None:
        """Write all of *view* at the position of *fd*. Raises OSError."""
        while view:
            written = os.write(fd, view) if self._kept > 0 else self._write_past(fd, view)
            self._kept -= written
            view = view[written:]

    def _write_past(self, fd: int, view: memoryview) -> int:
        try:
            return os.pwritev(fd, [view], _HERE, RWF_DONTCACHE)
        except (AttributeError, NotImplementedError):
            pass  # a C library without pwritev2(2), musl for example
        except OSError as error:
            # An older kernel, or a file system that has no such writes (tmpfs, overlayfs).
            if error.errno not in _CANNOT:
                raise
        self._kept = 1 << 62
        return os.write(fd, view)
