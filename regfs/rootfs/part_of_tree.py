"""PartOfTree: a part of a FileTree as a FileTree of its own, so that a part can be unpacked or copied.

    below a directory      its entries are those of the root
    one entry              the root has only that entry, under any name

Used by verbs/unpack.py and verbs/cp.py. Thread rule: any thread, like the tree behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.rootfs.file_tree import FileTree
from regfs.store.layers.content import Content, Span


@dataclass(frozen=True, slots=True)
class PartOfTree:
    """What is in *whole* below the directory *root*; with *only*, that name and node are all that the root has."""

    whole: FileTree
    root: int
    only: tuple[bytes, int] | None = None

    def first_rows(self) -> Mapping[int, int]:
        """See FileTree."""
        return self.whole.first_rows()

    def lookup(self, node: int, name: bytes) -> tuple[int, bytes]:
        """See FileTree."""
        if self.only is None or node != self.root:
            return self.whole.lookup(node, name)
        if name != self.only[0]:
            raise NotFound(f"{name!r}: no such entry")
        return self.only[1], self.whole.attributes(self.only[1])

    def attributes(self, node: int) -> bytes:
        """See FileTree."""
        return self.whole.attributes(node)

    def parent(self, node: int) -> int:
        """See FileTree."""
        is_top = node == self.root or (self.only is not None and node == self.only[1])
        return self.root if is_top else self.whole.parent(node)

    def path(self, node: int) -> bytes:
        """See FileTree: the path in the whole, which is what a message should name."""
        return self.whole.path(node)

    def count(self, node: int) -> int:
        """See FileTree."""
        return 1 if self.only is not None and node == self.root else self.whole.count(node)

    def children(self, node: int, start: int, limit: int) -> list[tuple[bytes, int, bytes]]:
        """See FileTree."""
        if self.only is None or node != self.root:
            return self.whole.children(node, start, limit)
        name, entry = self.only
        return [] if start else [(name, entry, self.whole.attributes(entry))]

    def target(self, node: int) -> bytes:
        """See FileTree."""
        return self.whole.target(node)

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """See FileTree."""
        return self.whole.xattrs(node)

    def content(self, node: int) -> Content:
        """See FileTree."""
        return self.whole.content(node)

    def following(self, node: int, limit: int) -> list[tuple[int, Span]]:
        """See FileTree."""
        return self.whole.following(node, limit)
