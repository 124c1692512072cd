"""What is told to the kernel unasked: what it shall forget, and bytes that it will want. Used by kernel_session.py.

    STORE         at once, by the thread that answers requests: bytes into the page cache of a node that nobody reads
    INVAL_INODE   at once: attributes of a node; the kernel waits for nobody for that
    INVAL_ENTRY   soon, by a thread of its own: the kernel may have to wait for a lock whose owner waits for an answer
                  of ours, so no thread that answers requests may write one

Thread rule: any thread. Source: the kernel's fs/fuse/dev.c (fuse_notify) for what each of them locks.
"""

from __future__ import annotations

import errno
import logging
import os
import queue

from regfs.mount import kernel_abi as abi
from regfs.threads import start_thread

log = logging.getLogger(__name__)

# The kernel does not know the node or the name (any more): then it has nothing to forget. Or the connection is gone.
_NOTHING_TO_FORGET = (errno.ENOENT, *abi.GONE)


class KernelNotices:
    """Writes notices to one connection, from connect() to close()."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._later: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
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

    def expire_entry(self, parent: int, name: bytes) -> None:
        """Let the kernel look *name* in *parent* up again, soon; who is inside stays there. Never blocks."""
        self._later.put(abi.pack_expire_entry(parent, name))

    def _write_later(self) -> None:
        while (notice := self._later.get()) is not None:
            try:
                os.write(self._descriptor, notice)
            except OSError as error:
                if error.errno not in _NOTHING_TO_FORGET:
                    log.warning("a notice was refused: %s", error.strerror)
