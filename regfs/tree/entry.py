"""The results of a look-up and of a listing. Used by both drivers. Values; any thread."""

from __future__ import annotations

import struct
from typing import NamedTuple

INODE = struct.Struct("<Q")
"""The first field of struct fuse_attr; the 80 bytes of model/attributes.py follow."""


class FoundEntry(NamedTuple):
    """A node: its id, struct fuse_attr (88 bytes), for how many seconds both hold, and the id's generation."""

    node: int
    attributes: bytes
    valid_s: float
    generation: int = 0


class ListedEntry(NamedTuple):
    """An entry of a listing. With *node* 0 only type and inode number are known.

    A look-up gives the rest; if the validity is not 0, so does Listing.at_once().
    """

    name: bytes
    node: int
    attributes: bytes
    valid_s: float
    generation: int = 0
