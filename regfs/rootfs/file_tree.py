"""FileTree: the interface of a read-only tree of files, which tree/ shows as rootfs/ or layers/N/tree/.

Implemented by Rootfs, LayerTree and PartOfTree. Thread rule: every implementation answers from disk or memory, never
waits for a network, and may be used by any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from regfs.store.layers.content import Content, Span


class FileTree(Protocol):
    """A directory tree that never changes.

    Nodes are the keys of model/node_id.py, attributes the 80 bytes of model/attributes.py. A node of another tree is a
    bug of the caller, and raises NotFound. Every method may raise CacheFailure.
    """

    @property
    def root(self) -> int:
        """The root directory's node."""

    def first_rows(self) -> Mapping[int, int]:
        """Return, for each layer number that a node may have, how many rows the layers before it have.

        That number plus the row in a node fits 32 bits and is unique in the tree: the inode number is made of it.
        """

    def lookup(self, node: int, name: bytes) -> tuple[int, bytes]:
        """Return node and attributes of the entry *name*. Raises NotFound, NotADirectory."""

    def attributes(self, node: int) -> bytes:
        """Return the attributes of *node*."""

    def parent(self, node: int) -> int:
        """Return the directory that the directory *node* is in; the root's is itself. Raises NotADirectory."""

    def path(self, node: int) -> bytes:
        """Return a path from the root to *node*, for messages: a hard link has others too. Raises NotFound."""

    def count(self, node: int) -> int:
        """Return how many entries the directory *node* has. Raises NotADirectory."""

    def children(self, node: int, start: int, limit: int) -> list[tuple[bytes, int, bytes]]:
        """Return (name, node, attributes) of at most *limit* entries from position *start*, by name."""

    def target(self, node: int) -> bytes:
        """Return the text of a symbolic link. Raises NotASymlink."""

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """Return the extended attributes of *node*."""

    def content(self, node: int) -> Content:
        """Return where the bytes of the file *node* are; Nothing for a device or a link. Raises IsADirectory."""

    def following(self, node: int, limit: int) -> list[tuple[int, Span]]:
        """Return at most *limit* files that come soon after the file *node* in its layer.

        The order is that of the layer's archive, which was written by a walk: a program that reads all files mostly
        reads them in the same order. Files that the image does not show may be among them.
        """
