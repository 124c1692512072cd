"""Snapshot: the node ids that the kernel knows, as plain values for a hand-over to another process.

Tree.snapshot() makes one. A tree also writes the same values to Records whenever they change, so that they survive if
the daemon is killed. Tree.restore() reads them into a new tree over the same cache, and the kernel's node ids then keep
their meaning. For a table they have only its slot. All fields are numbers and texts, so that json.dumps() can write
them. Values; any thread.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class KeptNode(NamedTuple):
    """A node that the kernel has looked up: an invented one, or the directory of a table."""

    node: int
    generation: int
    key: str
    """The node's key, by which Root.locate() finds the node."""
    tag: str
    """The key of the tag's directory that this is or is below; '' if there is none."""
    found_in: int
    """The node id of its parent directory."""
    changing: str | None
    """The name in that directory, if its meaning may change, as os.fsdecode() returns it."""
    lookups: int
    identity: str = ""
    """The key of the inode numbers of a table's directory; '' for an invented node."""
    record: int = 0
    """The number of its record (Records); 0 if it has none."""


class TagImage(NamedTuple):
    """The image that a tag's directory shows, and its descriptor from the registry."""

    node: int
    digest: str
    media_type: str
    size: int
    record: int = 0


class Snapshot(NamedTuple):
    """Kept nodes, each after its parent directory; the images that tags show; the next free slot."""

    nodes: tuple[KeptNode, ...]
    images: tuple[TagImage, ...]
    next_slot: int
    generation: int


class Records(Protocol):
    """Where a tree writes what the kernel was told. A record is complete when the call returns. Any thread."""

    def keep(self, value: KeptNode | TagImage) -> int:
        """Write *value* and return the number of its record; 0 if there is no room."""

    def count(self, record: int, lookups: int) -> None:
        """Write the look-up count of a node. Record 0 is ignored."""

    def drop(self, record: int) -> None:
        """Remove a record. Record 0 is ignored."""

    def free_slot(self, number: int, generation: int) -> None:
        """Write the number of the slot that is tried next."""


class NoRecords:
    """Drops all records: for trees that are not handed over."""

    def keep(self, value: KeptNode | TagImage) -> int:
        del value
        return 0

    def count(self, record: int, lookups: int) -> None: ...

    def drop(self, record: int) -> None: ...

    def free_slot(self, number: int, generation: int) -> None: ...


NO_RECORDS: Records = NoRecords()
