"""RowTree: a directory tree that is a table. What the tree room sees of a merged image and of a layer's own files.

A node is a 44-bit key, (layer << 32) | row: nothing is kept for it. Implemented by rootfs.py and layer_view.py.
Thread rule: any thread; every answer comes from disk or memory, and none waits.
"""

from __future__ import annotations

from typing import Protocol

from regfs.store.content import Content


class RowTree(Protocol):
    """Answers by key. Attributes are the 80 packed bytes of model/attributes.py."""

    @property
    def root(self) -> int:
        """The key of the root directory."""

    def lookup(self, node: int, name: bytes) -> tuple[int, bytes]:
        """Return key and attributes of the entry *name* of the directory *node*. Raises NotFound, NotADirectory."""

    def attributes(self, node: int) -> bytes:
        """Return the attributes of *node*. Raises NotFound."""

    def parent(self, node: int) -> int:
        """Return the key of the directory that the directory *node* is in; the root is in itself."""

    def count(self, node: int) -> int:
        """Return how many entries the directory *node* has. Raises NotADirectory."""

    def children(self, node: int, start: int, limit: int) -> list[tuple[bytes, int, bytes]]:
        """Return at most *limit* entries (name, key, attributes) from position *start*, in name order."""

    def target(self, node: int) -> bytes:
        """Return the target of the symbolic link *node*. Raises NotASymlink."""

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """Return the extended attributes of *node*."""

    def content(self, node: int) -> Content:
        """Return where the bytes of the regular file *node* are. Raises IsADirectory."""
