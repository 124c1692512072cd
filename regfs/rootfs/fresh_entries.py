"""Writes entries in batches that need no look-up, because their layer itself made their directory.

SQLite copies plain entries from the layer's index by itself. The row of an implied directory lacks its attributes, so
its entry is kept here until the batch is written. Used by layer_directories.py and apply.py; one thread.
"""

from __future__ import annotations

from regfs.model.layer_entry import ROOT_ROW
from regfs.rootfs.attached_layer import AttachedLayer
from regfs.rootfs.working_tree import WorkingTree


class FreshEntries:
    """The entries of the layer *attached* that wait to be written into *tree*.

    *seen* is the last row that was applied; *names* and *directories* are rows of the tree's tables.
    """

    __slots__ = ("_attached", "_copied", "_tree", "directories", "names", "seen")

    def __init__(self, tree: WorkingTree, attached: AttachedLayer) -> None:
        self._tree = tree
        self._attached = attached
        self._copied = ROOT_ROW
        self.seen = ROOT_ROW
        self.names: list[tuple[int, bytes, int, bytes, int, int, int]] = []
        self.directories: list[tuple[int, int, int, bytes | None]] = []

    def write(self) -> None:
        """Write the waiting entries. Must be called before the tree is searched or entries are removed by directory."""
        if self.seen > self._copied:
            self._attached.copy_entries(self._copied, self.seen)
            self._copied = self.seen
        self._tree.put_implied(self.names)
        self._tree.put_parents(self.directories)
        self.names.clear()
        self.directories.clear()
