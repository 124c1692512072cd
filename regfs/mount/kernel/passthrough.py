"""Passthrough: files that the kernel reads itself (Linux 6.9, needs CAP_SYS_ADMIN). Used by requests.py, page_cache.py.

While a node is open, each further open must have the same backing id as the first, or none like it; otherwise the
kernel answers EIO (fs/fuse/iomode.c; measured). So the opens of each node are counted here, and its backing id is given
back with the last release. A RELEASE is sent after the kernel has closed the file, so the count is never too low.
Thread rule: any thread; one lock, held for an ioctl or a notification, neither of which blocks.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import threading
from collections.abc import Callable

from regfs.mount.kernel import abi

log = logging.getLogger(__name__)

CACHED = 0
# No CAP_SYS_ADMIN; the cache is on a stacked file system; a kernel without passthrough.
_FOR_GOOD = (errno.EPERM, errno.ELOOP, errno.EOPNOTSUPP, errno.ENOTTY)


class OpenNodes:
    """The nodes that are open, with the backing id of each; CACHED for those that the kernel reads by READ requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, list[int]] = {}
        self._device = -1
        self._allowed = False

    def allow_passthrough(self, device: int) -> None:
        """Register backing files with the connection *device* from now on."""
        self._device = device
        self._allowed = True

    def opened(self, node: int, backing_fd: Callable[[], int | None]) -> tuple[int, bool]:
        """Count one more open of *node*; return its backing id or CACHED, and whether this is its only open.

        *backing_fd* is called for the first open, if passthrough is possible.
        """
        with self._lock:
            entry = self._open.get(node)
            if entry is not None:
                entry[1] += 1
                return entry[0], False
            number = CACHED
            if self._allowed:
                descriptor = backing_fd()
                if descriptor is not None:
                    number = self._register(descriptor)
            self._open[node] = [number, 1]
            return number, True

    def restore(self, node: int, backing_id: int) -> None:
        """Count one open of *node*, which an earlier daemon has answered with *backing_id*."""
        with self._lock:
            self._open.setdefault(node, [backing_id, 0])[1] += 1

    def while_open(self, node: int, times: int, do: Callable[[], None]) -> None:
        """Call *do* if *node* is open exactly that many times; further opens wait until it returns."""
        with self._lock:
            entry = self._open.get(node)
            if times == (0 if entry is None else entry[1]):
                do()

    def released(self, node: int) -> None:
        """Count one open of *node* less; after the last, give its backing id back."""
        with self._lock:
            entry = self._open.get(node)
            if entry is None:
                return
            entry[1] -= 1
            if entry[1] == 0:
                del self._open[node]
                if entry[0] != CACHED:
                    self._unregister(entry[0])

    def _register(self, descriptor: int) -> int:
        try:
            return _ioctl(self._device, abi.IOC_BACKING_OPEN, abi.BACKING_MAP.pack(descriptor, 0, 0))
        except OSError as error:
            if error.errno in _FOR_GOOD:
                log.info("no passthrough: %s", error.strerror)
                self._allowed = False
            else:
                log.warning("no passthrough for one file: %s", error.strerror)
            return CACHED

    def _unregister(self, number: int) -> None:
        try:
            _ioctl(self._device, abi.IOC_BACKING_CLOSE, abi.BACKING_ID.pack(number))
        except OSError as error:
            log.warning("backing id %d could not be given back: %s", number, error.strerror)


def _ioctl(device: int, request: int, argument: bytes) -> int:
    """Return what ioctl(2) returns; only with a mutable argument does Python's return that and not the argument."""
    result: int = fcntl.ioctl(device, request, bytearray(argument))
    return result
