"""Rootfs: all layers of an image merged, as a FileTree.

    rootfs/etc/os-release      names, nodes and directories from the merged table, or from the index of the layer that
                               alone has the directory; target, xattrs and content of a row from its layer's index

Used by images/. Thread rule: any thread.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from regfs.errors import IsADirectory, NotADirectory, NotASymlink, NotFound
from regfs.model.attributes import is_directory, mode_of, size_of
from regfs.model.digest import Digest
from regfs.model.layer_entry import ROOT_ROW, Row, unpack_xattrs
from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT, ROW_MASK, node_key
from regfs.rootfs.directories import Child, Directories, Entry
from regfs.rootfs.directory_cache import DirectoryCache
from regfs.rootfs.file_tree import FileTree
from regfs.store.images.merged_table import MergedDirectory, MergedRow, MergedTable
from regfs.store.layers.content import Content, Span, content_of
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.tables.open_tables import OpenTables


class Rootfs:
    """The merged tree of an image; see FileTree for what each method promises."""

    def __init__(
        self,
        merged: MergedTable,
        layers: Sequence[LayerIndex],
        *,
        diff_ids: Sequence[Digest],
        tables: OpenTables,
        hidden: Sequence[frozenset[bytes]] = (),
    ) -> None:
        """Show *merged*, which was made of *layers* (base first), whose diff ids are *diff_ids*.

        *hidden* are the names in the root of each layer that were left out (layers/formats/format.py).

        *tables* bounds the memory for cached directories, as it bounds the open tables. export/erofs/ reads the
        attributes of this object. Its files are not evicted from the cache while it exists.
        """
        self.merged = merged
        self.layers = layers
        self.diff_ids = diff_ids
        self._hidden = hidden
        self.root = merged.root
        self._directories = Directories(merged, layers)
        # Listing a directory queries it and its parent six times. A merged table never changes.
        self._cache = DirectoryCache(self._directories, tables)

    def files_of_layer(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Yield row and attributes of each file with bytes of that layer, shown or not, in the order of the archive."""
        index, names = self.layers[number], self._hidden[number] if self._hidden else ()
        hidden = {row.row for name in names if (row := index.lookup(ROOT_ROW, name)) is not None}
        return ((row, attributes) for row, attributes in index.files() if row not in hidden)

    def has_tree_of(self, other: Rootfs) -> bool:
        """Whether both trees are the same merged table. Equal layers do not suffice: one image may hide names."""
        return self.merged.path == other.merged.path

    def size_of_tables(self) -> int:
        """Return how many bytes its tables have on disk: about what a copy of all its names takes. Raises OSError."""
        return sum(table.path.stat().st_size for table in (self.merged, *self.layers))

    def first_rows(self) -> dict[int, int]:
        """Return how many rows come before those of each layer; invented directories come last."""
        counts = self.merged.row_counts()
        return dict(enumerate(accumulate(counts[:-1], initial=0))) | {INVENTED_LAYER: sum(counts)}

    def lookup(self, node: int, name: bytes) -> tuple[int, bytes]:
        """Return node and attributes of the entry *name*. Raises NotFound, NotADirectory."""
        names = self._cache.names(node)
        found = self._entry(node, name) if names is None else names.get(name)
        if found is None:
            self._directory(node)
            raise NotFound(f"{name.decode(errors='backslashreplace')}: no such entry")
        return found

    def attributes(self, node: int) -> bytes:
        """Return the attributes of *node*."""
        directory = self._cache.directory(node)
        if directory is not None:
            return directory.attributes
        return self.merged.link(node) or self._row(node).attributes

    def parent(self, node: int) -> int:
        """Return the directory that the directory *node* is in. Raises NotADirectory."""
        return self._directory(node).parent

    def path(self, node: int) -> bytes:
        """Return the path that *node* has in its layer. Raises NotFound."""
        if node == self.root:
            return b""
        return self._layer(node).path_of(node & ROW_MASK)

    def count(self, node: int) -> int:
        """Return how many entries the directory *node* has. Raises NotADirectory."""
        return self._directory(node).size

    def children(self, node: int, start: int, limit: int) -> list[tuple[bytes, int, bytes]]:
        """Return (name, node, attributes) of at most *limit* entries from position *start*, by name."""
        return self._directories.children(node, start, limit, self._directory(node))

    def spans(self) -> dict[int, tuple[int, int]]:
        """Return the spans of the shared directories, for page(); 150 bytes for each."""
        return self._directories.spans()

    def page(self, node: int, span: tuple[int, int] | None, start: int, limit: int) -> list[Child]:
        """Return what children() does, for a directory with that span, None if it is unshared: one query."""
        return self._directories.page(node, span, start, limit)

    def entries(self) -> Iterator[MergedRow]:
        """Yield (parent, name, node, attributes) of all names but the root's; see Directories.entries()."""
        return self._directories.entries()

    def target(self, node: int) -> bytes:
        """Return the text of a symbolic link. Raises NotASymlink."""
        row = None if _is_invented(node) else self._row(node)
        if row is None or not stat.S_ISLNK(mode_of(row.attributes)):
            raise NotASymlink(f"node {node:#x} is not a symbolic link")
        return row.target or b""

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """Return the extended attributes of *node*."""
        return {} if _is_invented(node) else unpack_xattrs(self._row(node).xattrs)

    def content(self, node: int) -> Content:
        """Return where the bytes of the file *node* are; Nothing for a device or a link. Raises IsADirectory."""
        if _is_invented(node):
            raise IsADirectory(f"node {node:#x} is a directory")
        attributes, content = self._layer(node).stored(node & ROW_MASK)
        if content is None and is_directory(attributes):
            raise IsADirectory(f"node {node:#x} is a directory")
        return content_of(self.diff_ids[node >> LAYER_SHIFT], content, size_of(attributes))

    def node_of(self, span: Span) -> int | None:
        """Return the file whose bytes are *span*; None if there is none. Takes milliseconds."""
        layer = self.diff_ids.index(span.layer) if span.layer in self.diff_ids else None
        row = None if layer is None else self.layers[layer].row_of_content(span.offset)
        return None if layer is None or row is None else node_key(layer, row)

    def following(self, node: int, limit: int) -> list[tuple[int, Span]]:
        """Return at most *limit* files that come soon after *node* in its layer."""
        layer = node >> LAYER_SHIFT
        return [
            (node_key(layer, row), Span(self.diff_ids[layer], offset, size_of(attributes)))
            for row, attributes, offset in self._layer(node).following(node & ROW_MASK, limit)
        ]

    def _entry(self, node: int, name: bytes) -> Entry | None:
        is_shared = self._cache.is_shared(node)
        found = self._directories.entry(node, name, is_shared=is_shared)
        if found is not None and not is_shared and is_directory(found[1]):
            self._cache.note(found[0], is_shared=False)  # as all below an unshared directory
        return found

    def _directory(self, node: int) -> MergedDirectory:
        directory = self._cache.directory(node)
        if directory is None:
            raise NotADirectory(f"node {node:#x} is not a directory")
        return directory

    def _row(self, node: int) -> Row:
        return self._layer(node).row(node & ROW_MASK)

    def _layer(self, node: int) -> LayerIndex:
        layer = node >> LAYER_SHIFT
        if layer >= len(self.layers):
            raise NotFound(f"no node {node:#x}: the image has {len(self.layers)} layers")
        return self.layers[layer]


def _is_invented(node: int) -> bool:
    """Tell whether *node* is a directory that no layer has a row for."""
    return node >> LAYER_SHIFT == INVENTED_LAYER


if TYPE_CHECKING:

    def _assert_file_tree(tree: Rootfs) -> FileTree:
        """Let mypy check that it is one."""
        return tree
