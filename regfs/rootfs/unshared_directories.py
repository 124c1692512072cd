"""Directories of the merge that one layer alone has: their entries are not copied, for the layer's index has them.

A directory is unshared as long as everything in it and below it is what the index of its layer says. Most names of an
image are in such directories, which the merge never reads: it takes as long as what the layers share. They become
*shared* (working_tree.py) when another layer writes something below them. From the start (attached_layer.py), those are
shared whose index says less than the tree shows:

    a directory with a whiteout, marker, implied directory, or hard link to a lower layer in it or below it
    a directory that no tar entry describes
    a directory that lies behind a symbolic link of a lower layer

Used by the merge; one thread. Methods raise CacheFailure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from regfs.model.attributes import is_directory
from regfs.model.layer_entry import Row
from regfs.model.node_id import LAYER_SHIFT, ROW_MASK, node_key
from regfs.store.layers.layer_index import LayerIndex

EXPLICIT = 1
"""A directory that a tar entry of any layer describes."""
LINKED = 2
"""A file that may have further hard links: its names are counted when the merge is finished."""
_ONE_NAME = (1).to_bytes(4, "little")
_NLINK = slice(56, 60)
# The type is in the top half of the mode's second byte. A call of is_directory() takes as long as the rest of a turn.
_TYPE, _DIRECTORY = 53, 4
_PAGE = 4096

NameRow = tuple[int, bytes, int, bytes, int, int | None, int]
"""Directory, name, and the fields of a Name."""


class Name(NamedTuple):
    """One name of the tree, as the table has it. *layer* wrote it last; *directory* is None for other types."""

    node: int
    attributes: bytes
    layer: int
    directory: int | None
    flags: int


class UnsharedDirectories:
    """Reads unshared directories of *layers* (base first), whose ids are the keys of their rows.

    *linked* are the numbers of the layers that have hard links.
    """

    def __init__(self, layers: Sequence[LayerIndex]) -> None:
        self.layers = layers
        self.linked: list[int] = []
        self._visible = -1

    def show(self, layer: int, row: int) -> None:
        """Let entries exist up to *row* of *layer*, which is being applied."""
        self._visible = node_key(layer, row)

    def row(self, node: int) -> Row:
        """Return the row of *node*."""
        return self.layers[node >> LAYER_SHIFT].row(node & ROW_MASK)

    def lookup(self, directory: int, name: bytes) -> Name | None:
        """Return the entry *name* of *directory*, or None."""
        found = self.layers[directory >> LAYER_SHIFT].lookup(directory & ROW_MASK, name)
        if found is None or (directory & ~ROW_MASK | found.row) > self._visible:
            return None
        return _name_of(directory, found)

    def entries(self, directory: int) -> Iterator[NameRow]:
        """Yield the entries of *directory* as rows of the working tree's table of names, a page in memory at a time."""
        base, layer, number = directory & ~ROW_MASK, directory >> LAYER_SHIFT, directory & ROW_MASK
        index = self.layers[layer]
        if layer == self._visible >> LAYER_SHIFT:
            for row in index.children(number):
                if base | row.row <= self._visible:
                    yield directory, row.name, *_name_of(directory, row)
            return
        page = index.listing(number, b"", _PAGE, base=base)
        while page:
            for name, node, attributes in page:
                if attributes[_TYPE] >> 4 == _DIRECTORY:
                    yield directory, name, node, attributes, layer, node, EXPLICIT
                else:
                    flags = 0 if attributes[_NLINK] == _ONE_NAME else LINKED
                    yield directory, name, node, attributes, layer, None, flags
            page = index.listing(number, page[-1][0], _PAGE, base=base) if len(page) == _PAGE else []

    def parent(self, directory: int) -> int:
        """Return the directory that *directory* is in."""
        return directory & ~ROW_MASK | self.row(directory).parent


def _name_of(directory: int, row: Row) -> Name:
    layer, node = directory >> LAYER_SHIFT, directory & ~ROW_MASK | row.inode
    if is_directory(row.attributes):
        return Name(node, row.attributes, layer, node, EXPLICIT)
    return Name(node, row.attributes, layer, None, 0 if row.attributes[_NLINK] == _ONE_NAME else LINKED)
