"""A directory of a view: names, each with what makes its node. Used by the modules of this package. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from regfs.errors import NotFound
from regfs.tree.node import FOREVER, Child, Found, Node
from regfs.tree.parts import DirectoryOfImage


class Entry(NamedTuple):
    """The mode of a name in a listing, and what makes its node, given the node's key."""

    mode: int
    make: Callable[[str], Node]


@dataclass(frozen=True, slots=True)
class ViewDirectory(DirectoryOfImage):
    """A directory whose entries *entries* returns; that may block on the network and raise what it brings."""

    entries: Callable[[], Mapping[str, Entry]] = field(compare=False)

    def lookup(self, name: str) -> Found:
        """Return the entry of that name."""
        entry = self.entries().get(name)
        if entry is None:
            raise NotFound(f"{self.key} has no {name[:300]!r}")
        return Found(entry.make(f"{self.key}/{name}"), FOREVER)

    def children(self) -> list[Child]:
        """Return all names."""
        return [Child(name, entry.mode, f"{self.key}/{name}") for name, entry in self.entries().items()]
