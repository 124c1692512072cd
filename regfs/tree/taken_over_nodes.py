"""Nodes that were taken over from another process, and are located when a request first needs them.

Locating a node reads the documents of its image, and waits for the registry if the cache has lost them. A daemon that
takes over thousands of nodes could not answer for seconds if it located all of them at once. Used by tree.py. Thread
rule: any thread; two threads that locate the same node at once get equal nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from regfs.errors import NotFound, StaleNode
from regfs.rootfs.file_tree import FileTree
from regfs.tree.node import Node, TableDirectory
from regfs.tree.snapshot import KeptNode

Locate = Callable[[str, str], Node]
"""Returns the node of a key and a tag: Root.locate."""

_NOTHING: Mapping[bytes, bytes] = {}


class DormantNode:
    """A node whose key and tag alone are known; wake() locates it."""

    __slots__ = ("_locate", "_node", "key", "tag")

    def __init__(self, kept: KeptNode, locate: Locate) -> None:
        self.key = kept.key
        self.tag = kept.tag
        self._locate = locate
        self._node: Node | None = None

    def wake(self) -> Node:
        """Return the node. May block on the network. Raises StaleNode where it no longer exists."""
        node = self._node
        if node is None:
            try:
                node = self._node = self._locate(self.key, self.tag)
            except NotFound as error:
                raise StaleNode(f"{self.key} cannot be taken over: {error}") from error
        return node


def dormant_table(kept: KeptNode, locate: Locate) -> TableDirectory:
    """Return the directory of a table that is located when the table is first loaded."""
    dormant = DormantNode(kept, locate)
    return TableDirectory(kept.key, kept.identity, partial(_load, dormant), partial(_origin, dormant))


def _directory(dormant: DormantNode) -> TableDirectory:
    found = dormant.wake()
    if not isinstance(found, TableDirectory):
        raise StaleNode(f"{dormant.key} is no longer a table")
    return found


def _load(dormant: DormantNode) -> FileTree:
    return _directory(dormant).load()


def _origin(dormant: DormantNode, layer: int) -> Mapping[bytes, bytes]:
    origin = _directory(dormant).origin
    return _NOTHING if origin is None else origin(layer)
