"""A tree on a disk that hangs, for both drivers: the suite's tree, and beside it

/hanging/N   for each N a directory: a look-up of `lookup` and a read of `read` hang in there until /mended is looked
             up, and see no deadline meanwhile; each says HANGING on standard output
"""

from __future__ import annotations

import os
import threading

from regfs.model.node_id import ROOT
from tests.mount.memory_tree import Entry, MemoryFile, SuiteTree

DIRECTORIES = 40


class HangingFile(MemoryFile):
    """A file of which the content lies on the disk that hangs."""

    def __init__(self, entry: Entry, tree: HangingTree) -> None:
        super().__init__(entry)
        self._tree = tree

    def read_at(self, offset: int, size: int) -> bytes:
        self._tree.hang()
        return super().read_at(offset, size)


class HangingTree(SuiteTree):
    """The suite's tree with `/hanging` and `/mended`."""

    def __init__(self) -> None:
        super().__init__()
        self.mended = threading.Event()
        self._hanging: set[int] = set()
        top = self.directory(ROOT, b"hanging")
        for number in range(DIRECTORIES):
            directory = self.directory(top, b"%d" % number)
            self.nodes[self.file(directory, b"lookup", b"late\n")].wait = self.hang
            self._hanging.add(self.file(directory, b"read", b"late\n"))
        self.nodes[self.file(ROOT, b"mended", b"")].wait = self.mended.set

    def hang(self) -> None:
        """Return when the disk has been mended."""
        if not self.mended.is_set():
            os.write(1, b"HANGING\n")  # print() writes the end of a line by itself, after that of another thread
            self.mended.wait()

    def open(self, node: int) -> MemoryFile:
        if node in self._hanging:
            return HangingFile(self.nodes[node], self)
        return super().open(node)
