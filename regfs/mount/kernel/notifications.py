"""Notifications: messages to the kernel that answer no request (FUSE_NOTIFY_*).

    STORE         bytes for the page cache of a file that is not being read: written at once, by the reading thread
    INVAL_INODE   attributes of a node are stale: written at once; the kernel takes no lock that it could wait for
    INVAL_ENTRY   a name has expired: written by a thread of its own, since the kernel may wait for a lock whose owner
                  waits for an answer of this daemon. Written again after a second: an answer that was decided before
                  the first notification and written after it would undo that one

Used by session.py, requests.py and page_cache.py. Thread rule: any thread. Source: the kernel's fs/fuse/dev.c
(fuse_notify) for the locks that each of them takes.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import time
from collections.abc import Callable, Iterable

from regfs.mount.kernel import abi
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)

# The kernel does not know the node or the name, so it has nothing to forget; or the connection has ended.
_NOTHING_TO_FORGET = (errno.ENOENT, *abi.GONE)
# Longer than any answer takes from its decision to its write.
_AGAIN_S = 1.0


Entries = Callable[[], Iterable[tuple[int, bytes]]]
"""Returns the names that have expired: the node of the directory, and the name in it."""


class Notifications:
    """Writes notifications to one connection, from connect() to close()."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._later: queue.SimpleQueue[Entries | None] = queue.SimpleQueue()
        self.expires_entries = False
        """Whether the kernel can let a name expire without dropping what processes use below it (Linux 6.2)."""

    def connect(self, descriptor: int) -> None:
        """Write to *descriptor* from now on; the caller closes it. Raises OutOfThreads."""
        self._descriptor = descriptor
        start_thread(self._write_later, name="regfs-notices")

    def close(self) -> None:
        """Write no more; call it before the descriptor is closed."""
        self._descriptor = -1
        self._later.put(None)

    def store(self, node: int, offset: int, content: bytes) -> bool:
        """Put *content* into the kernel's page cache at once; return whether the kernel took it.

        Only while no READ of *node* can be under way: see page_cache.py.
        """
        try:
            os.writev(self._descriptor, [abi.pack_store_head(node, offset, len(content)), content])
        except OSError as error:
            # ENOENT: the kernel has not looked the node up, or has forgotten it
            log.debug("NOTIFY_STORE: %s", error.strerror)
            return False
        return True

    def invalidate_attributes(self, node: int) -> None:
        """Make the kernel drop the attributes of *node* before this returns."""
        try:
            os.write(self._descriptor, abi.pack_inval_inode(node, -1, 0))
        except OSError as error:
            log.debug("NOTIFY_INVAL_INODE: %s", error.strerror)

    def expire_entries(self, entries: Entries) -> None:
        """Make the kernel look these names up again, soon. Processes below them stay there. Never blocks."""
        self._later.put(entries)

    def _write_later(self) -> None:
        again: tuple[float, Entries] | None = None
        while True:
            try:
                entries = self._later.get(timeout=None if again is None else max(0.0, again[0] - time.monotonic()))
                if entries is None:
                    return
                again = time.monotonic() + _AGAIN_S, entries
            except queue.Empty:
                if again is None:
                    continue
                entries, again = again[1], None
            self._write(entries)

    def _write(self, entries: Entries) -> None:
        for parent, name in entries():
            try:
                os.write(self._descriptor, abi.pack_expire_entry(parent, name))
            except OSError as error:
                if error.errno not in _NOTHING_TO_FORGET:
                    log.warning("a notification was refused: %s", error.strerror)
