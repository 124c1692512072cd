"""What is told to the kernel unasked: what it shall forget, and bytes that it will want. Used by kernel/session.py.

    STORE         at once, by the thread that answers requests: bytes into the page cache of a node that nobody reads
    INVAL_INODE   at once: attributes of a node; the kernel waits for nobody for that
    INVAL_ENTRY   soon, by a thread of its own: the kernel may have to wait for a lock whose owner waits for an answer
                  of ours, so no thread that answers requests may write one; and again after a second: an answer that
                  was decided before the first notice and written after it would undo it

Thread rule: any thread. Source: the kernel's fs/fuse/dev.c (fuse_notify) for what each of them locks.
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

# The kernel does not know the node or the name (any more): then it has nothing to forget. Or the connection is gone.
_NOTHING_TO_FORGET = (errno.ENOENT, *abi.GONE)
# An answer is written within milliseconds after it was decided, unless the machine stands still.
_AGAIN_S = 1.0


Entries = Callable[[], Iterable[tuple[int, bytes]]]
"""Returns the names that are to be looked up again: the node of their directory, and the name in it."""


class Notifications:
    """Writes notices to one connection, from connect() to close()."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._later: queue.SimpleQueue[Entries | None] = queue.SimpleQueue()
        self.expires_entries = False
        """Whether the kernel can look a name up again without taking it from those who are inside (Linux 6.2)."""

    def connect(self, descriptor: int) -> None:
        """Write to *descriptor* from now on, which stays its owner's. Raises OutOfThreads."""
        self._descriptor = descriptor
        start_thread(self._write_later, name="regfs-notices")

    def close(self) -> None:
        """Write no more; before the descriptor is closed."""
        self._descriptor = -1
        self._later.put(None)

    def store(self, node: int, offset: int, content: bytes) -> bool:
        """Put *content* into the kernel's page cache at once; only while no READ of *node* can be under way.

        Return whether the kernel took it; where not, it asks with a READ.
        """
        try:
            os.writev(self._descriptor, [abi.pack_store_head(node, offset, len(content)), content])
        except OSError as error:
            # ENOENT: the kernel does not know the node, any more or yet
            log.debug("NOTIFY_STORE: %s", error.strerror)
            return False
        return True

    def invalidate_attributes(self, node: int) -> None:
        """Let the kernel forget the attributes of *node* at once."""
        try:
            os.write(self._descriptor, abi.pack_inval_inode(node, -1, 0))
        except OSError as error:
            log.debug("NOTIFY_INVAL_INODE: %s", error.strerror)

    def expire_entries(self, entries: Entries) -> None:
        """Let the kernel look these names up again, soon. Processes inside stay there. Never blocks."""
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
                    log.warning("a notice was refused: %s", error.strerror)
