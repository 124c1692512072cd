"""Tables of the parts of a directory: one row says a part's name, when it is listed, and how its node is made.

Listing and look-up use the same rows, so they cannot disagree. Used by image.py, layers.py and blobs.py. Thread rule:
values; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from regfs.images.pinned_images import PinnedImage
from regfs.model.attributes import Attributes
from regfs.tree.node import TABLE_MODE, Child, Dated, Node, TableDirectory, directory_attributes

Owner = TypeVar("Owner")
Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class DirectoryOfImage(Dated):
    """A directory of an image: its key, the image, and its date."""

    key: str
    pinned: PinnedImage

    def attributes(self) -> Attributes:
        """Return a directory's attributes, with the date at which the image was made where it is known."""
        return directory_attributes(self.pinned.created_ns)


@dataclass(frozen=True, slots=True)
class Part(Generic[Owner, Facts]):
    """The name *name* in a directory of the class Owner.

    *is_listed* decides by what is known of the directory. *make* returns the node, given directory and key, and raises
    NotFound where the directory has no such part. *mode* is the mode in a listing.
    """

    name: str
    mode: int
    is_listed: Callable[[Facts], bool]
    make: Callable[[Owner, str], Node]


def listed(parts: Iterable[Part[Owner, Facts]], owner: Owner, key: str, facts: Facts) -> list[Child]:
    """Return the children of *owner*, whose key is *key*: the parts that *facts* says are listed, in order."""
    return [_child(part, owner, f"{key}/{part.name}") for part in parts if part.is_listed(facts)]


def _child(part: Part[Owner, Facts], owner: Owner, key: str) -> Child:
    # A listing may give the kernel the attributes of a table's directory, so it needs that node, and no other.
    table = part.make(owner, key) if part.mode == TABLE_MODE else None
    return Child(part.name, part.mode, key, table if isinstance(table, TableDirectory) else None)
