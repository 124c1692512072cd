"""The files of one image as the root of a mount: `regfs mount --fuse`.

    /            the image's rootfs/
    /.regfs/     the daemon seen from inside, as in every mount; it opens, and no listing has it

All else of the tree is there, and has no name that leads to it. Used by daemon/session.py. Thread rule: any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from regfs.model.node_id import ROOT
from regfs.tree.entry import FoundEntry
from regfs.tree.root import CONTROL

if TYPE_CHECKING:
    from regfs.tree.listings import Listing
    from regfs.tree.node import OpenFile
    from regfs.tree.tree import Tree
    from regfs.tree.usage import Usage

_ROOTFS = b"rootfs"
_CONTROL = CONTROL.encode()


class OneImage:
    """What *tree* shows as the rootfs/ of the image that *names* lead to. See Tree for what each method promises."""

    def __init__(self, tree: Tree, names: Sequence[str]) -> None:
        """Look *names* up, from the root of *tree* on: the image has to be there, its layers need not.

        Blocks on the network; raises NotFound and what a look-up brings.
        """
        self._tree = tree
        self._image = ROOT
        for name in names:
            self._image = tree.lookup(self._image, name.encode()).node
        self._rootfs = 0

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """See Tree.lookup."""
        if parent == ROOT and name == _CONTROL:
            return self._tree.lookup(ROOT, name)
        return self._tree.lookup(self._inside(parent), name)

    def forget(self, node: int, count: int) -> None:
        """See Tree.forget. The root stays, and with it the image that it has shown first."""
        if node != ROOT:
            self._tree.forget(node, count)

    def attributes(self, node: int) -> FoundEntry:
        """See Tree.attributes."""
        found = self._tree.attributes(self._inside(node))
        return found._replace(node=ROOT, generation=0) if node == ROOT else found

    def enter(self, node: int) -> bool:
        """See Tree.enter."""
        return self._tree.enter(self._inside(node))

    def parent(self, node: int) -> int:
        """See Tree.parent."""
        above = ROOT if node == ROOT else self._tree.parent(node)
        return ROOT if above == self._rootfs else above

    def listing(self, node: int) -> Listing:
        """See Tree.listing."""
        return self._tree.listing(self._inside(node))

    def read_link(self, node: int) -> bytes:
        """See Tree.read_link."""
        return self._tree.read_link(self._inside(node))

    def open(self, node: int) -> OpenFile:
        """See Tree.open."""
        return self._tree.open(self._inside(node))

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """See Tree.read_following."""
        return self._tree.read_following(node, limit, buffer)

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """See Tree.xattrs."""
        return self._tree.xattrs(self._inside(node))

    def name_of(self, node: int) -> str:
        """See Tree.name_of."""
        return self._tree.name_of(self._rootfs or self._image if node == ROOT else node)

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return none: what the root shows never changes."""
        return []

    def usage(self) -> Usage:
        """See Tree.usage."""
        return self._tree.usage()

    def _inside(self, node: int) -> int:
        """Return the node of the tree that *node* stands for; the first time, the image's layers are fetched."""
        if node != ROOT:
            return node
        if not self._rootfs:
            self._rootfs = self._tree.lookup(self._image, _ROOTFS).node
        return self._rootfs
