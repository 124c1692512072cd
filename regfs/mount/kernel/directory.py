"""Directory answers: a listing, cut into what the kernel's buffer holds. Used by kernel/requests.py.

The offset of an entry is its position: 1 after `.`, 2 after `..`, 3 after the first of the listing, so that seekdir,
telldir and a daemon that takes over need no memory of earlier answers. One object per open directory; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from regfs.mount.kernel import abi

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.listings import Listing

_DOTS = 2
_DIRENT_SIZE = 24
_PLUS_SIZE = 152
_LENGTH_AT = 144
# Bytes of a name on average, padded: the listing is asked for about as many entries as fit, not for all.
_USUAL_NAME = 16


class Part(NamedTuple):
    """The answer to a READDIRPLUS that asks for *size* bytes from position *offset* on.

    The next part begins at position *behind*; *directories* are the nodes of the directories in this one.
    """

    offset: int
    size: int
    answer: bytes
    behind: int
    directories: list[int]


def looked_up(answer: bytes) -> Iterator[int]:
    """Yield the nodes of the entries in an answer to READDIRPLUS: each counts as one look-up."""
    at = 0
    while at < len(answer):
        (node,), (length,) = abi.NODE.unpack_from(answer, at), abi.NAME_LENGTH.unpack_from(answer, at + _LENGTH_AT)
        if node:
            yield node
        at += _PLUS_SIZE + length + len(abi.NAME_PADDING[length & 7])


class OpenDirectory:
    """One open directory: the listing of *node*, and the two entries that every directory has."""

    __slots__ = ("_listing", "_tree", "node")

    def __init__(self, tree: FileSystem, node: int, listing: Listing) -> None:
        self._tree = tree
        self._listing = listing
        self.node = node

    def read(self, offset: int, size: int) -> bytes:
        """Return the entries from position *offset* on that fit into *size* bytes, for READDIR; none at the end.

        Raises what the listing raises.
        """
        answer = self._dots(offset, size, plus=False)
        left = size - sum(map(len, answer))
        start = max(0, offset - _DOTS)
        pack = abi.DIRENT.pack
        paddings = abi.NAME_PADDING
        position = start + _DOTS
        for name, _, attributes, _, _ in self._listing.entries(start, max(1, left // (_DIRENT_SIZE + _USUAL_NAME))):
            position += 1
            length = len(name)
            entry = pack(attributes[:8], position, length, attributes[abi.TYPE_AT] >> 4) + name + paddings[length & 7]
            left -= len(entry)
            if left < 0:
                break
            answer.append(entry)
        return b"".join(answer)

    def read_plus(self, offset: int, size: int) -> Part:
        """Return the entries as `read` does, each with its node, attributes and validity, as READDIRPLUS wants them.

        An entry of node 0 must be looked up first: the kernel takes its name and type alone. Each other one counts as
        a look-up. Raises what the listing raises.
        """
        answer = self._dots(offset, size, plus=True)
        directories: list[int] = []
        left = size - sum(map(len, answer))
        start = max(0, offset - _DOTS)
        pack = abi.PLUS_HEAD.pack
        paddings = abi.NAME_PADDING
        known_s, (whole, nanoseconds) = float("inf"), abi.FOR_EVER
        position = start + _DOTS
        entries = self._listing.entries(start, max(1, left // (_PLUS_SIZE + _USUAL_NAME)))
        for name, node, attributes, valid_s, generation in entries:
            position += 1
            length = len(name)
            padding = paddings[length & 7]
            left -= _PLUS_SIZE + length + len(padding)
            if left < 0:
                position -= 1
                break
            if valid_s and not node:
                _, node, attributes, valid_s, generation = self._listing.at_once(position - _DOTS - 1)
            if valid_s != known_s:
                known_s, (whole, nanoseconds) = valid_s, abi.valid_for(valid_s)
            entry = (
                pack(
                    node, generation, whole, whole, nanoseconds, nanoseconds, attributes,
                    attributes, position, length, attributes[abi.TYPE_AT] >> 4,
                ) + name + padding
            )  # fmt: skip
            answer.append(entry)
            if attributes[abi.TYPE_AT] >> 4 == abi.DT_DIRECTORY:
                directories.append(node)
        return Part(offset, size, b"".join(answer), position, directories)

    def _dots(self, offset: int, size: int, *, plus: bool) -> list[bytes]:
        """Return `.` and `..` where *offset* is before them; the kernel makes no nodes of them, so node 0 is right."""
        if offset >= _DOTS:
            return []
        own = self._tree.attributes(self.node).attributes
        above = self._tree.attributes(self._tree.parent(self.node)).attributes
        entries = []
        for position, name, attributes in ((1, b".", own), (2, b"..", above)):
            if position > offset:
                head = bytes(_PLUS_SIZE - _DIRENT_SIZE) if plus else b""
                dirent = abi.DIRENT.pack(attributes, position, len(name), abi.DT_DIRECTORY)
                entries.append(head + dirent + name + abi.NAME_PADDING[len(name)])
        return entries if sum(map(len, entries)) <= size else entries[:1]
