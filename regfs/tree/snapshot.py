"""Snapshot: the node ids that the kernel knows, as plain values that another process can take over.

Tree.snapshot() makes one, Tree.restore() of a new tree over the same cache takes it, and the kernel's node ids then
keep their meaning. Of a table it has only the slot. All fields are numbers and texts, so that json.dumps() can write
it. Values; any thread.
"""

from __future__ import annotations

from typing import NamedTuple


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


class TagImage(NamedTuple):
    """The image that a tag's directory shows, and its descriptor from the registry."""

    node: int
    digest: str
    media_type: str
    size: int


class Snapshot(NamedTuple):
    """Kept nodes, each after the directory that it was found in; images of tags; which slot is free next."""

    nodes: tuple[KeptNode, ...]
    images: tuple[TagImage, ...]
    next_slot: int
    generation: int
