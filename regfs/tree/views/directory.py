"""A directory of a view: names, each with a function that makes its node.

Used by the modules of this package. Any thread.

A view that depends on a registry's answer is valid for *valid_s* seconds. Afterwards its names may mean something else,
so the key of a node has the entry's *identity* after the name, as keys below a tag have a digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from regfs.errors import NotFound
from regfs.tree.directory_parts import DirectoryOfImage
from regfs.tree.node import FOREVER, TABLE_MODE, Child, Found, Node, TableDirectory


class Entry(NamedTuple):
    """The mode of a name in a listing, the function that makes its node from a key, and the node's identity."""

    mode: int
    make: Callable[[str], Node]
    identity: str = ""


@dataclass(frozen=True, slots=True)
class ViewDirectory(DirectoryOfImage):
    """A directory whose entries *entries* returns; the call may block on the network and raise its errors."""

    entries: Callable[[], Mapping[str, Entry]] = field(compare=False)
    valid_s: float = FOREVER

    def lookup(self, name: str) -> Found:
        """Return the entry of that name."""
        entries = self.entries()
        entry = entries.get(name)
        if entry is None and "@" in name:  # the last part of a key, by which another process locates the node
            name, _, identity = name.partition("@")
            entry = entries.get(name)
            entry = entry if entry is not None and entry.identity == identity else None
        if entry is None:
            raise NotFound(f"{self.key} has no {name[:300]!r}")
        return Found(entry.make(self._key(name, entry)), self.valid_s)

    def children(self) -> list[Child]:
        """Return all names."""
        return [self._child(name, entry) for name, entry in self.entries().items()]

    def _child(self, name: str, entry: Entry) -> Child:
        key = self._key(name, entry)
        # A listing may give the kernel the attributes of a table's directory, so only that node is made here.
        node = entry.make(key) if entry.mode == TABLE_MODE else None
        return Child(name, entry.mode, key, node if isinstance(node, TableDirectory) else None)

    def _key(self, name: str, entry: Entry) -> str:
        return f"{self.key}/{name}@{entry.identity}" if entry.identity else f"{self.key}/{name}"
