"""Puts bytes into the kernel's page cache before it asks, and opens files that are wholly there without the tree.

    before an OPEN      all bytes of a small file that prefetch.py has read
    during an OPEN      the first 64 KiB, before the answer: a small file then costs no READ
    at the next OPEN    a small file that the kernel was given whole is open without the tree (PageCachedFile)

To store bytes the kernel locks the file's pages. A READ of the same file that is under way holds these locks until it
is answered, and the thread that stores may be the one that must answer it. So bytes are stored only while no other open
of the file exists: OpenNodes.while_open holds further ones up meanwhile.

Used by requests.py and prefetch.py. Thread rule: any thread opens files; the one that reads requests stores bytes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from regfs.model.node_id import is_entry
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.passthrough import OpenNodes

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.node import OpenFile

# Bytes. Most small files are smaller; storing more would make an OPEN as slow as a READ.
_STORED_AT_OPEN = 64 * 1024
_MOST_STORED = 1 << 16


class PageCache:
    """Which files the kernel's page cache was given bytes of; the kernel may have dropped their pages since."""

    def __init__(self, tree: FileSystem, notifications: Notifications, open_nodes: OpenNodes) -> None:
        self._tree = tree
        self._notifications = notifications
        self._open_nodes = open_nodes
        # By node: whether the bytes that the kernel was given are all of a file that never changes.
        self._stored: dict[int, bool] = {}

    def __contains__(self, node: int) -> bool:
        """Tell whether bytes of *node* were stored."""
        return node in self._stored

    def open(self, node: int) -> OpenFile:
        """Open the file *node*, without the tree where the kernel was given all of it. Raises what the tree raises."""
        return PageCachedFile(self._tree, node) if self._stored.get(node) else self._tree.open(node)

    def store_before_open(self, node: int, content: bytes) -> bool:
        """Store *content*, all bytes of the file *node*, unless it is open; return whether the kernel has them.

        The kernel takes none for a node that it has not looked up yet.
        """
        if node not in self._stored:
            self._open_nodes.while_open(node, 0, lambda: self._store(node, content))
        return node in self._stored

    def store_at_open(self, node: int, file: OpenFile) -> None:
        """Store the first bytes of *file*, the only open one of *node*, if they can be read without waiting.

        Call it before the OPEN is answered, when the kernel cannot have sent a READ yet.
        """
        if node in self._stored:
            return
        try:
            content = file.read_at(0, _STORED_AT_OPEN)
        except Exception:  # WouldBlock, or a failure that the READ meets too, where it is reported
            return
        self._open_nodes.while_open(node, 1, lambda: self._store(node, content))

    def _store(self, node: int, content: bytes) -> None:
        if content and not self._notifications.store(node, 0, content):
            return
        if len(self._stored) >= _MOST_STORED:
            self._stored.clear()
        self._stored[node] = len(content) < _STORED_AT_OPEN and is_entry(node)


class PageCachedFile:
    """The small file *node* of *tree*, below a digest, all of whose bytes the kernel was given. An OpenFile.

    Opening it again needs no call of the tree. Where the kernel has dropped pages and sends a READ, the file is opened
    in the tree after all. Files that an earlier daemon has opened are such files too, with any of their pages in the
    kernel. Any thread may read.
    """

    __slots__ = ("_file", "_lock", "_node", "_tree", "keep_cache")

    def __init__(self, tree: FileSystem, node: int, *, keep_cache: bool = True) -> None:
        self.keep_cache = keep_cache
        self._tree = tree
        self._node = node
        self._file: OpenFile | None = None
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes that the kernel no longer has. Raises what opening and reading in the tree raise."""
        file = self._file
        if file is None:
            opened = self._tree.open(self._node)  # outside the lock: it may wait for the network
            with self._lock:
                file = self._file = self._file or opened
            if file is not opened:
                opened.close()
        return file.read_at(offset, size)

    def backing_fd(self) -> int | None:
        """Return None: what is in the page cache is not passed through."""
        return None

    def close(self) -> None:
        """Close the file in the tree, if it had to be opened."""
        if self._file is not None:
            self._file.close()
