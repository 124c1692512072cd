"""Shows a file system with other owners: `--owner me`, `--subuid`. Modes and all other attributes stay the image's.

In a user namespace, overlayfs cannot copy up a file whose owner has no id in that namespace (EACCES, EOVERFLOW). Used
by app/owners.py. Thread rule: any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regfs.tree.entry import FoundEntry, ListedEntry

if TYPE_CHECKING:
    from regfs.tree.listings import Listing
    from regfs.tree.node import OpenFile
    from regfs.tree.one_image import OneImage
    from regfs.tree.tree import Tree
    from regfs.tree.usage import Usage

    Shown = Tree | OneImage

_IDS = struct.Struct("<II")
# The offset of uid and gid in struct fuse_attr: 8 bytes of inode number and 60 bytes come before (model/attributes.py).
_START, _END = 68, 76


@dataclass(frozen=True, slots=True)
class Owner:
    """The same owner for every file."""

    uid: int
    gid: int

    def ids(self, _uid: int, _gid: int) -> tuple[int, int]:
        """Return this owner, for any owner in the image."""
        return self.uid, self.gid


@dataclass(frozen=True, slots=True)
class MappedOwner:
    """Owners computed by two functions from the image's uid and gid."""

    uid_of: Callable[[int], int]
    gid_of: Callable[[int], int]

    def ids(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the mapped ids."""
        return self.uid_of(uid), self.gid_of(gid)


class OwnedTree:
    """The file system *shown*, with the owners that *owner* gives. See FileSystem for each method."""

    def __init__(self, shown: Shown, owner: Owner | MappedOwner) -> None:
        self._shown = shown
        self._owner = owner
        self._constant = _IDS.pack(*owner.ids(0, 0)) if isinstance(owner, Owner) else b""

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        """See Tree.lookup."""
        return self._found(self._shown.lookup(parent, name))

    def forget(self, node: int, count: int) -> None:
        """See Tree.forget."""
        self._shown.forget(node, count)

    def attributes(self, node: int) -> FoundEntry:
        """See Tree.attributes."""
        return self._found(self._shown.attributes(node))

    def enter(self, node: int) -> bool:
        """See Tree.enter."""
        return self._shown.enter(node)

    def parent(self, node: int) -> int:
        """See Tree.parent."""
        return self._shown.parent(node)

    def listing(self, node: int) -> Listing:
        """See Tree.listing."""
        return _OwnedListing(self._shown.listing(node), self._owned)

    def read_link(self, node: int) -> bytes:
        """See Tree.read_link."""
        return self._shown.read_link(node)

    def open(self, node: int) -> OpenFile:
        """See Tree.open."""
        return self._shown.open(node)

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        """See Tree.read_following."""
        return self._shown.read_following(node, limit, buffer)

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """See Tree.xattrs."""
        return self._shown.xattrs(node)

    def unlink(self, parent: int, name: bytes) -> None:
        """See Tree.unlink."""
        self._shown.unlink(parent, name)

    def may_unlink(self, node: int) -> bool:
        """See Tree.may_unlink."""
        return self._shown.may_unlink(node)

    def name_of(self, node: int) -> str:
        """See Tree.name_of."""
        return self._shown.name_of(node)

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """See Tree.changing_entries."""
        return self._shown.changing_entries()

    def usage(self) -> Usage:
        """See Tree.usage."""
        return self._shown.usage()

    def _found(self, found: FoundEntry) -> FoundEntry:
        return found._replace(attributes=self._owned(found.attributes))

    def _owned(self, attributes: bytes) -> bytes:
        ids = self._constant or _IDS.pack(*self._owner.ids(*_IDS.unpack_from(attributes, _START)))
        return attributes[:_START] + ids + attributes[_END:]


@dataclass(frozen=True, slots=True)
class _OwnedListing:
    """The entries of *listing*, with the owners that *owner* gives."""

    listing: Listing
    owned: Callable[[bytes], bytes]

    def entries(self, start: int, limit: int) -> list[ListedEntry]:
        """See Listing.entries."""
        owned = self.owned
        return [each._replace(attributes=owned(each.attributes)) for each in self.listing.entries(start, limit)]

    def at_once(self, position: int) -> ListedEntry:
        """See Listing.at_once."""
        found = self.listing.at_once(position)
        return found._replace(attributes=self.owned(found.attributes))
