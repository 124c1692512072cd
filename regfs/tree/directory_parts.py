"""Tables of the parts of a directory: a row has a part's name, when it is listed, and how its node is made.

Listing and look-up use the same rows, so they always agree. Used by image.py, layers.py and blobs.py. Thread rule:
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
    """A directory of an image: it has a key, the image, and the image's date."""

    key: str
    pinned: PinnedImage

    def attributes(self) -> Attributes:
        """Return a directory's attributes, dated with the image's creation if that is known."""
        return directory_attributes(self.pinned.created_ns)


@dataclass(frozen=True, slots=True)
class Part(Generic[Owner, Facts]):
    """The name *name* in a directory of the class Owner.

    *is_listed* decides by facts about the directory whether a listing has the part. *make* returns the node, given
    directory and key; it raises NotFound if the directory has no such part. *mode* is the mode in a listing.
    """

    name: str
    mode: int
    is_listed: Callable[[Facts], bool]
    make: Callable[[Owner, str], Node]


def listed(parts: Iterable[Part[Owner, Facts]], owner: Owner, key: str, facts: Facts) -> list[Child]:
    """Return the parts of *owner*, whose key is *key*, that are listed according to *facts*, in order."""
    return [_child(part, owner, f"{key}/{part.name}") for part in parts if part.is_listed(facts)]


def _child(part: Part[Owner, Facts], owner: Owner, key: str) -> Child:
    # A listing may give the kernel the attributes of a table's directory, so only that node is made here.
    table = part.make(owner, key) if part.mode == TABLE_MODE else None
    return Child(part.name, part.mode, key, table if isinstance(table, TableDirectory) else None)
