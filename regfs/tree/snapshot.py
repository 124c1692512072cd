"""Snapshot: the node ids that the kernel knows, as plain values that another process can take over.

Tree.snapshot() makes one, and a tree writes the same values to Records whenever they change, so that a daemon that is
killed leaves them behind. Tree.restore() of a new tree over the same cache takes them, and the kernel's node ids then
keep their meaning. Of a table they have only the slot. All fields are numbers and texts, so that json.dumps() can write
them. Values; any thread.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class KeptNode(NamedTuple):
    """A node that the kernel has looked up: an invented one, or the directory of a table."""

    node: int
    generation: int
    key: str
    """Root.locate() finds the node by it."""
    tag: str
    """The key of the tag's directory that this is or is below; '' where there is none."""
    found_in: int
    """The node id of the directory above."""
    changing: str | None
    """The name in that directory, where it may come to mean another node; bytes that are no UTF-8 as os.fsdecode()."""
    lookups: int
    identity: str = ""
    """What the inode numbers of a table's directory are made from; '' for an invented node."""
    record: int = 0
    """Its number in Records; 0 where it has none."""


class TagImage(NamedTuple):
    """The image that a tag's directory shows, and its descriptor from the registry."""

    node: int
    digest: str
    media_type: str
    size: int
    record: int = 0


class Snapshot(NamedTuple):
    """Kept nodes, each after the directory that it was found in; images of tags; which slot is free next."""

    nodes: tuple[KeptNode, ...]
    images: tuple[TagImage, ...]
    next_slot: int
    generation: int


class Records(Protocol):
    """Where a tree writes what the kernel was told. A record is there, whole, when the call returns. Any thread."""

    def keep(self, value: KeptNode | TagImage) -> int:
        """Write *value* and return the number of its record; 0 where there is no room."""

    def count(self, record: int, lookups: int) -> None:
        """Write the look-ups of a node; nothing for record 0."""

    def drop(self, record: int) -> None:
        """Remove a record; nothing for record 0."""

    def free_slot(self, number: int, generation: int) -> None:
        """Write which slot is tried next."""


class NoRecords:
    """Keeps nothing: for trees that no other process takes over."""

    def keep(self, value: KeptNode | TagImage) -> int:
        del value
        return 0

    def count(self, record: int, lookups: int) -> None: ...

    def drop(self, record: int) -> None: ...

    def free_slot(self, number: int, generation: int) -> None: ...


NO_RECORDS: Records = NoRecords()
