"""The files of one image as the root of a mount: `regfs mount --fuse`.

    /            the image's rootfs/
    /.regfs/     files about the daemon, as in every mount; opens, is not listed

The rest of the tree has no name in this mount. Made by app/composition.py for daemon/session.py. Thread rule: any
thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

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


class KeptRoot(Protocol):
    """Stores the node ids of image and rootfs, so that the next daemon shows the same image."""

    @property
    def root(self) -> tuple[int, int]:
        """The node ids of the image and of its rootfs/; 0 for an unknown one."""

    def keep_root(self, image: int, rootfs: int) -> None:
        """Store both node ids; *rootfs* is 0 until it was looked up."""


class OneImage:
    """The file system whose root is the rootfs/ of the image at *names* in *tree*. See Tree for each method."""

    def __init__(self, tree: Tree, names: Sequence[str], kept: KeptRoot | None = None) -> None:
        """Look *names* up from the root of *tree*, unless *kept* has the image's node. Fetches no layer.

        Blocks on the network; raises NotFound and the other errors of a look-up.
        """
        self._tree = tree
        self._kept = kept
        self._image, self._rootfs = (0, 0) if kept is None else kept.root
        if not self._image:
            self._image = ROOT
            for name in names:
                self._image = tree.lookup(self._image, name.encode()).node
            self._keep()

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """See Tree.lookup."""
        if parent == ROOT and name == _CONTROL:
            return self._tree.lookup(ROOT, name)
        return self._tree.lookup(self._inside(parent), name)

    def forget(self, node: int, count: int) -> None:
        """See Tree.forget. The root is never forgotten, so it always shows the image that it showed first."""
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

    def unlink(self, parent: int, name: bytes) -> None:
        """See Tree.unlink."""
        self._tree.unlink(parent, name)

    def may_unlink(self, node: int) -> bool:
        """See Tree.may_unlink."""
        return self._tree.may_unlink(node)

    def name_of(self, node: int) -> str:
        """See Tree.name_of."""
        return self._tree.name_of(self._rootfs or self._image if node == ROOT else node)

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return none: the root always shows the same image."""
        return []

    def usage(self) -> Usage:
        """See Tree.usage."""
        return self._tree.usage()

    def _inside(self, node: int) -> int:
        """Return the tree's node id for *node*; the first call for the root fetches the image's layers."""
        if node != ROOT:
            return node
        if not self._rootfs:
            self._rootfs = self._tree.lookup(self._image, _ROOTFS).node
            self._keep()
        return self._rootfs

    def _keep(self) -> None:
        if self._kept is not None:
            self._kept.keep_root(self._image, self._rootfs)
