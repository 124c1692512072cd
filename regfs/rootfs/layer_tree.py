"""LayerTree: one layer's files alone, as a FileTree.

    layers/2/tree/etc/.wh.motd      whiteouts are entries like others, as they are stored

A hard link to a file of a lower layer is shown as a symbolic link to that path, relative to its directory. Used by
images/. Thread rule: any thread.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import IsADirectory, NotADirectory, NotASymlink, NotFound
from regfs.model.attributes import Attributes, is_directory, mode_of, size_of
from regfs.model.digest import Digest
from regfs.model.layer_entry import ROOT_ROW, EntryFlag, Row, unpack_xattrs
from regfs.rootfs.file_tree import FileTree
from regfs.store.layers.content import Content, Nothing, Span, content_of
from regfs.store.layers.layer_index import LayerIndex


class LayerTotals(NamedTuple):
    """How many names a layer has (files, directories, links), and how many bytes; hard links count once."""

    files: int
    size: int


class LayerTree:
    """The tree of one layer; see FileTree for what each method promises. A node is a row."""

    def __init__(self, index: LayerIndex, *, diff_id: Digest, hidden: frozenset[bytes] = frozenset()) -> None:
        """Show *index* without the names *hidden* in the root, unless they are directories."""
        self._index = index
        self._diff_id = diff_id
        self._hidden = hidden
        self._listing: tuple[int, list[Row]] = (-1, [])
        self.root = ROOT_ROW

    def narrowed(self, names: Sequence[bytes]) -> tuple[LayerTree, bool]:
        """Return the tree below the path *names*, followed only while nothing is beside it, and whether something is.

        If the path ends at a file, the tree is that of its directory: the root of a tree is a directory.
        """
        node = self.root
        for name in names:
            rows = self._rows(node)
            if len(rows) != 1 or rows[0].name != name:
                return self._at(node), True
            if not is_directory(rows[0].attributes):
                return self._at(node), name != names[-1]
            node = rows[0].row
        return self._at(node), False

    def _at(self, node: int) -> LayerTree:
        tree = LayerTree(self._index, diff_id=self._diff_id, hidden=self._hidden)
        tree.root = node
        return tree

    def totals(self) -> LayerTotals:
        """Return how much the layer has. Reads all of the index."""
        size = sum(size_of(attributes) for _, attributes in self._index.contents())
        rows = [self._index.lookup(ROOT_ROW, name) for name in self._hidden]
        hidden = [row for row in rows if row is not None and self._hides(row)]
        return LayerTotals(self._index.count() - 1 - len(hidden), size - sum(size_of(row.attributes) for row in hidden))

    def first_rows(self) -> dict[int, int]:
        """Return one number: the tree has one layer."""
        return {0: 0}

    def lookup(self, node: int, name: bytes) -> tuple[int, bytes]:
        """Return node and attributes of the entry *name*. Raises NotFound, NotADirectory."""
        found = self._index.lookup(node, name) if name else None
        if found is None or self._hides(found):
            self._directory(node)
            raise NotFound(f"{name.decode(errors='backslashreplace')}: no such entry")
        return self._shown(found)

    def attributes(self, node: int) -> bytes:
        """Return the attributes of *node*."""
        return self._shown(self._index.row(node))[1]

    def parent(self, node: int) -> int:
        """Return the directory that the directory *node* is in. Raises NotADirectory."""
        return self._directory(node).parent

    def path(self, node: int) -> bytes:
        """Return a path from the root to *node*. Raises NotFound."""
        return self._index.path_of(node)

    def count(self, node: int) -> int:
        """Return how many entries the directory *node* has. Raises NotADirectory."""
        return len(self._rows(node))

    def children(self, node: int, start: int, limit: int) -> list[tuple[bytes, int, bytes]]:
        """Return (name, node, attributes) of at most *limit* entries from position *start*, by name."""
        return [(row.name, *self._shown(row)) for row in self._rows(node)[start : start + limit]]

    def target(self, node: int) -> bytes:
        """Return the text of a symbolic link, or where a hard link to a lower layer leads. Raises NotASymlink."""
        row = self._index.row(node)
        if self._leads_below(row):
            return self._way_to(row)
        if not stat.S_ISLNK(mode_of(row.attributes)):
            raise NotASymlink(f"row {node} is not a symbolic link")
        return row.target or b""

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """Return the extended attributes of *node*."""
        return unpack_xattrs(self._index.row(node).xattrs)

    def content(self, node: int) -> Content:
        """Return where the bytes of the file *node* are; Nothing for a device or a link. Raises IsADirectory."""
        row = self._index.row(node)
        if self._leads_below(row):
            return Nothing()
        if is_directory(row.attributes):
            raise IsADirectory(f"row {node} is a directory")
        return content_of(self._diff_id, row.content, size_of(row.attributes))

    def following(self, node: int, limit: int) -> list[tuple[int, Span]]:
        """Return at most *limit* files that come soon after *node*."""
        return [
            (row, Span(self._diff_id, offset, size_of(attributes)))
            for row, attributes, offset in self._index.following(node, limit)
        ]

    def _directory(self, node: int) -> Row:
        row = self._index.row(node)
        if self._leads_below(row) or not is_directory(row.attributes):
            raise NotADirectory(f"row {node} is not a directory")
        return row

    def _rows(self, node: int) -> list[Row]:
        """Return the entries of the directory *node*. The last listing is cached, because readers read it in parts."""
        kept, rows = self._listing
        if kept != node:
            self._directory(node)
            rows = [row for row in self._index.children(node) if not self._hides(row)]
            self._listing = node, rows
        return rows

    def _hides(self, row: Row) -> bool:
        return row.name in self._hidden and row.parent == ROOT_ROW and not is_directory(row.attributes)

    def _shown(self, row: Row) -> tuple[int, bytes]:
        """Return node and attributes of *row*: the inode's node, unless the inode is in a lower layer."""
        if not self._leads_below(row):
            return row.inode, row.attributes
        own = Attributes.unpack(row.attributes)
        shown = own._replace(mode=stat.S_IFLNK | 0o777, size=len(self._way_to(row)), nlink=1, rdev=0)
        return row.row, shown.pack()

    def _leads_below(self, row: Row) -> bool:
        inode = row if row.inode == row.row else self._index.row(row.inode)
        return bool(inode.flags & EntryFlag.LINK_BELOW)

    def _way_to(self, row: Row) -> bytes:
        """Return the path of a lower layer's file, as seen from the directory of *row*."""
        ups = 0
        parent = row.parent
        while parent > ROOT_ROW:
            ups += 1
            parent = self._index.row(parent).parent
        return b"../" * ups + (row.target or b"").lstrip(b"/")


if TYPE_CHECKING:

    def _assert_file_tree(tree: LayerTree) -> FileTree:
        """Let mypy check that it is one."""
        return tree
