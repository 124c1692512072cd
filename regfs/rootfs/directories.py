"""Directories of a merged image: shared ones from its merged table, unshared ones from the index of their layer.

Used by rootfs.py, and by directory_cache.py, which keeps them in memory. Thread rule: any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from regfs.errors import CacheDamaged, NotFound
from regfs.model.attributes import is_directory
from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT, ROW_MASK, node_key
from regfs.store.images.merged_table import UNSHARED, MergedDirectory, MergedRow, MergedTable
from regfs.store.layers.layer_index import LayerIndex

Entry = tuple[int, bytes]
"""Node and attributes."""
Child = tuple[bytes, int, bytes]
"""An entry of a directory: name, node, attributes."""

_NLINK = slice(56, 60)
_ONE_NAME = (1).to_bytes(4, "little")
# Listings that go on where they stopped, at most; each takes some 100 bytes.
_MOST_LISTINGS = 256


class Directories:
    """The directories of the image with the table *merged*, made of *layers* (base first).

    Methods read the disk or memory and may raise CacheFailure.
    """

    def __init__(self, merged: MergedTable, layers: Sequence[LayerIndex]) -> None:
        self._merged = merged
        self._layers = layers
        self._has_links: bool | None = None
        # Where listings stopped: SQLite would walk from the first name to a position.
        self._stopped: dict[int, tuple[int, bytes]] = {}

    def directory(self, node: int) -> MergedDirectory | None:
        """Return the directory *node*, or None where *node* is not a directory."""
        found = self._merged.directory(node)
        if found is not None and found.first != UNSHARED:
            return found
        layer = node >> LAYER_SHIFT
        if layer == INVENTED_LAYER:
            return None
        if layer >= len(self._layers):
            raise NotFound(f"no node {node:#x}: the image has {len(self._layers)} layers")
        parent, attributes, size = self._layers[layer].sized(node & ROW_MASK)
        if attributes is None or not is_directory(attributes):
            return None
        above = node & ~ROW_MASK | parent if found is None else found.parent
        return MergedDirectory(above, UNSHARED, size, attributes)

    def is_shared(self, node: int) -> bool:
        """Tell whether *node* is a directory whose entries the merged table has."""
        return self._merged.is_shared(node)

    def entry(self, node: int, name: bytes, *, is_shared: bool) -> Entry | None:
        """Return the entry *name* of *node*, or None; *is_shared* is what is_shared() says."""
        layer = node >> LAYER_SHIFT
        if is_shared or layer >= len(self._layers):
            return self._merged.lookup(node, name)
        found = self._layers[layer].entry(node & ROW_MASK, name, base=node & ~ROW_MASK)
        return None if found is None else (found[0], self._counted(*found))

    def children(self, node: int, start: int, limit: int, directory: MergedDirectory) -> list[Child]:
        """Return at most *limit* entries of the directory *node* from position *start*, by name."""
        span = None if directory.first == UNSHARED else (directory.first, directory.size)
        return self.page(node, span, start, limit) if start < directory.size else []

    def page(self, node: int, span: tuple[int, int] | None, start: int, limit: int) -> list[Child]:
        """Do what children() does, for a directory with the span *span* of spans(); None if it is unshared."""
        if span is None:
            return self._unshared_children(node, start, limit)
        first, size = span
        return self._merged.children(first + start, first + min(size, start + limit)) if start < size else []

    def _unshared_children(self, node: int, start: int, limit: int) -> list[Child]:
        index, number = self._layers[node >> LAYER_SHIFT], node & ROW_MASK
        after: bytes | None = b""
        if start:
            position, after = self._stopped.get(node, (0, b""))
            if position != start:
                after = index.name_at(number, start - 1)
        if after is None:
            return []
        children = index.listing(number, after, limit, base=node & ~ROW_MASK)
        if len(children) == limit:
            if len(self._stopped) >= _MOST_LISTINGS:
                self._stopped.clear()
            self._stopped[node] = start + limit, children[-1][0]
        if self._counts_links():
            return [(name, child, self._counted(child, attributes)) for name, child, attributes in children]
        return children

    def spans(self) -> dict[int, tuple[int, int]]:
        """Return, for each shared directory, the id of its first entry and how many it has."""
        return self._merged.spans()

    def entries(self) -> Iterator[MergedRow]:
        """Yield (parent, name, node, attributes) of all names but the root's, each directory's together and sorted.

        A directory's name comes before its entries.
        """
        yield from self._shared_entries()
        unshared: dict[int, list[int]] = {}
        for node in self._merged.unshared():
            unshared.setdefault(node >> LAYER_SHIFT, []).append(node & ROW_MASK)
        for number, rows in unshared.items():
            yield from self._entries_of_layer(number, rows)

    def _shared_entries(self) -> Iterator[MergedRow]:
        """Yield the table's entries; those of an invented directory are in the table before its name."""
        named, held = {self._merged.root}, dict[int, Iterable[MergedRow]]()
        for parent, group in groupby(self._merged.entries(), key=itemgetter(0)):
            if parent not in named:
                held[parent] = list(group)
                continue
            ready: list[Iterable[MergedRow]] = [group]
            while ready:
                for row in ready.pop():
                    yield row
                    if is_directory(row[3]):
                        named.add(row[2])
                        ready += [held.pop(row[2])] if row[2] in held else []
        if held:
            raise CacheDamaged(f"{self._merged.path}: it has entries of directories that have no name")

    def _entries_of_layer(self, number: int, topmost: Sequence[int]) -> Iterator[MergedRow]:
        """Yield all names below the unshared directories *topmost* (rows) of the layer *number*."""
        index, base, counts = self._layers[number], node_key(number, 0), self._counts_links()
        is_unshared = bytearray(index.last_row() + 1)
        for row in topmost:
            is_unshared[row] = 1
        # What is in an unshared directory comes behind it (rootfs/unshared_directories.py).
        for row, parent in index.directories():
            if is_unshared[parent]:
                is_unshared[row] = 1
        for parent, name, inode, attributes in index.places():
            if is_unshared[parent]:
                node = base | inode
                yield base | parent, name, node, self._counted(node, attributes) if counts else attributes

    def _counted(self, node: int, attributes: bytes) -> bytes:
        """Return *attributes*, the row's, with the link count that the image has."""
        if attributes[_NLINK] == _ONE_NAME or not self._counts_links() or is_directory(attributes):
            return attributes
        return self._merged.link(node) or attributes

    def _counts_links(self) -> bool:
        if self._has_links is None:
            self._has_links = self._merged.has_links()
        return self._has_links
