"""The interface of the file system that both drivers show: nodes by number, never by path.

Daemons show regfs.tree.tree.Tree, or one image of it (regfs.tree.one_image.OneImage), either with other owners
(regfs.tree.owner.OwnedTree); tests have another in memory. A node is a number of model/node_id.py. All attributes are
struct fuse_attr, 88 bytes (abi.py). Every call may raise any RegfsError, and waits for the network as the thread's
deadline allows: under NON_BLOCKING it raises WouldBlock before it has changed anything, so that a thread that may wait
can make the same call. Thread rule: any thread may call anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from regfs.tree.entry import FoundEntry
    from regfs.tree.listings import Listing
    from regfs.tree.node import OpenFile
    from regfs.tree.one_image import OneImage
    from regfs.tree.owner import OwnedTree
    from regfs.tree.tree import Tree
    from regfs.tree.usage import Usage


class FileSystem(Protocol):
    """Nodes with look-up, attributes, listing and open. What is below an image's digest never changes."""

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """Return the entry *name* of the directory *parent*, and count one look-up of it. Raises NotFound."""

    def forget(self, node: int, count: int) -> None:
        """Take back *count* look-ups of *node*; entries of tables need not be given back."""

    def attributes(self, node: int) -> FoundEntry:
        """Return the attributes of *node*, and for how many seconds they hold."""

    def enter(self, node: int) -> bool:
        """Load the real attributes of the directory *node*; tell whether a listing has shown placeholders before."""

    def parent(self, node: int) -> int:
        """Return the directory that *node* was found in; the root is its own parent."""

    def listing(self, node: int) -> Listing:
        """Return the entries of the directory *node*. Raises NotADirectory."""

    def read_link(self, node: int) -> bytes:
        """Return the target of the symbolic link *node*. Raises NotASymlink."""

    def open(self, node: int) -> OpenFile:
        """Open the regular file *node*. Raises IsADirectory."""

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """Return nodes and bytes of at most *limit* small files that follow *node* in its layer. Does not wait.

        All bytes are read into *buffer* with one read. None for what is not an entry of a table.
        """

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes of *node*."""

    def unlink(self, parent: int, name: bytes) -> None:
        """Evict the part of the cache called *name* in the directory *parent*; ReadOnly for any other file."""

    def may_unlink(self, node: int) -> bool:
        """Return whether unlink() takes the file *node*, or names in the directory *node*. Asks no registry."""

    def name_of(self, node: int) -> str:
        """Return the path of *node* for messages, or its number. Never raises, never waits."""

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return directory and name of each look-up that the kernel still holds and whose answer may change."""

    def usage(self) -> Usage:
        """Return the numbers of the cache that statfs(2) reports."""


if TYPE_CHECKING:

    def _assert_file_systems(tree: Tree, image: OneImage, owned: OwnedTree) -> tuple[FileSystem, ...]:
        """Let mypy check that what daemons show is a file system."""
        return tree, image, owned
