"""A file whose bytes are all in the kernel's page cache: opened without asking the tree. Used by kernel/requests.py.

Reading a small file again costs its open and no READ at all, unless the kernel has dropped pages meanwhile; then the
file is opened in the tree after all. Thread rule: any thread may read, as with any open file.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.node import OpenFile


class PageCachedFile:
    """The small file *node* of *tree*, below a digest, whose bytes were handed to the kernel. An OpenFile."""

    __slots__ = ("_file", "_lock", "_node", "_tree")

    keep_cache = True

    def __init__(self, tree: FileSystem, node: int) -> None:
        self._tree = tree
        self._node = node
        self._file: OpenFile | None = None
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes that the kernel has no more. Raises what opening and reading in the tree raise."""
        file = self._file
        if file is None:
            opened = self._tree.open(self._node)  # without the lock: it may wait
            with self._lock:
                file = self._file = self._file or opened
            if file is not opened:
                opened.close()
        return file.read_at(offset, size)

    def backing_fd(self) -> int | None:
        """Return None: what is in the page cache is not passed through."""
        return None

    def close(self) -> None:
        """Close what had to be opened."""
        if self._file is not None:
            self._file.close()
