"""Finds the directory of the working tree that each directory of a layer stands for.

A directory of the layer is looked up when its first entry comes that is no marker: unpackers make parents then, so a
directory that only holds whiteouts is never made. Its row has one of three states:

    FRESH    the layer itself made the directory, at its own path: nothing of other layers can be in it, and SQLite
             copies its entries by itself, many at once (fresh_entries.py)
    MERGED   it existed already, or lies behind a symbolic link of a lower layer: each entry is looked up
    UNSEEN   no entry needed it yet

A directory of the layer is *redirected* where the layers below have a symbolic link of its name: the entries of `lib/`
go to `usr/lib/` where they have `lib -> usr/lib`. Used by apply.py; one thread.
Methods raise sqlite3.Error if the disk is full.
Source: umoci, oci/layer/tar_extract.go.
"""

from __future__ import annotations

import stat

from regfs.errors import BadLayer
from regfs.model.attributes import mode_of
from regfs.model.layer_entry import ROOT_ROW, EntryFlag, Row
from regfs.model.node_id import LAYER_SHIFT, ROW_MASK, node_key
from regfs.rootfs.attached_layer import AttachedLayer
from regfs.rootfs.fresh_entries import FreshEntries
from regfs.rootfs.unshared_directories import EXPLICIT, Name
from regfs.rootfs.working_tree import IMPLIED_DIRECTORY, ROOT, WorkingTree, implied_below

UNSEEN, FRESH, MERGED = 0, 1, 2
# Plain numbers: an operation on an IntFlag takes longer than the rest of an entry's turn in LayerApplication.run().
AUFS = int(EntryFlag.AUFS)
MARKERS = int(EntryFlag.WHITEOUT) | int(EntryFlag.OPAQUE_MARKER)


class LayerDirectories:
    """The directories of the layer *attached*, as directories of *tree*.

    *state* has a byte for each row. *touched* holds the directories of lower layers that contain an entry of this
    layer. *fresh* holds entries that were not written into the tree yet. *hidden_in* caches, between consecutive
    markers, the row of their directory and the directory it stands for; it is None if symbolic links lead there.
    *merged* holds rows of directories whose entries must be visited one by one from now on.
    """

    def __init__(self, tree: WorkingTree, attached: AttachedLayer) -> None:
        self._tree = tree
        self._layer = attached.number
        self._index = attached.index
        self._attached = attached
        self._base = node_key(attached.number, 0)
        self._keys: dict[int, int] = {ROOT_ROW: ROOT}
        self._redirected: set[int] = set()
        self._implied: dict[int, bytes] = {}
        self.state = bytearray(attached.index.last_row() + 1)
        self.touched: set[int] = set()
        self.fresh = FreshEntries(tree, attached)
        self.merged: list[int] = []
        self.hidden_in: tuple[int, int] | None = None

    def find_or_make(self, row: int) -> int | None:
        """Return the directory of the tree that *row* stands for; make missing directories on the way.

        Returns None for a directory of AUFS's own bookkeeping, which is never shown. Raises BadLayer.
        """
        parent_key, chain = self._nearest(row)
        for entry in chain:
            if entry.flags & AUFS:
                self.set_merged(row)
                return None
            parent_key = self._enter(parent_key, entry)
        return parent_key

    def find(self, row: int) -> int | None:
        """Return the directory of the tree that *row* stands for, to apply a marker in it; None if there is none.

        A marker makes no directory, and a fresh directory holds nothing that a marker could hide.
        """
        if self.state[row] == FRESH:
            return None
        if self.hidden_in is not None and self.hidden_in[0] == row:
            return self.hidden_in[1]
        parent_key, chain = self._nearest(row)
        leads_through_links = bool(self._redirected)
        for entry in chain:
            found = None if entry.flags & AUFS else self._tree.lookup(parent_key, entry.name)
            if found is None:
                return None
            if found.directory is not None:
                parent_key = found.directory
                continue
            if not stat.S_ISLNK(mode_of(found.attributes)):
                return None
            parent_key, missing = self._follow(parent_key, found)
            if missing:
                return None
            leads_through_links = True
        self.hidden_in = None if leads_through_links else (row, parent_key)
        return parent_key

    def _nearest(self, row: int) -> tuple[int, list[Row]]:
        """Return the nearest known directory at or above the directory *row*, and the rows from there down to it."""
        chain: list[Row] = []
        while self.state[row] != FRESH and row not in self._keys:
            chain.append(self._index.row(row))
            row = chain[-1].parent
        return (self._base | row if self.state[row] == FRESH else self._keys[row]), chain[::-1]

    def _enter(self, parent_key: int, entry: Row) -> int:
        """Return the directory that *entry*, a directory in *parent_key*, stands for; make it if it is missing."""
        row, parent, name = entry.row, entry.parent, entry.name
        # The attributes of a marker's row are not a directory's.
        is_own = self.state[row] == UNSEEN and not entry.flags & MARKERS
        if self.state[parent] == FRESH and is_own:
            key = self._base | row
            self.state[row] = FRESH
            attributes = self._attributes_below(parent_key, key)
            own = self._implied.get(key)
            self.fresh.names.append((parent_key, name, key, attributes, self._layer, key, 0))
            self.fresh.directories.append((key, parent_key, key, own))
            return key
        self._demote(parent_key, parent)
        found = self._tree.lookup(parent_key, name)
        if found is None:
            return self._make(parent_key, name, entry)
        if found.directory is not None:
            if not found.flags & EXPLICIT and is_own:
                self._tree.put_directory(parent_key, name, found._replace(node=self._base | row))
            self.note_merged(entry, found.directory)
            return found.directory
        shown = name.decode(errors="backslashreplace")
        if not stat.S_ISLNK(mode_of(found.attributes)):
            raise BadLayer(f"{shown!r} is not a directory in the layers below")
        self._redirected.add(row)
        at, missing = self._follow(parent_key, found)
        if missing:
            if self._tree.lookup(at, missing[0]) is not None:
                raise BadLayer(f"{shown!r} leads to something that is not a directory in the layers below")
            for link in missing[:-1]:
                at = self._make(at, link, None)
            at = self._make(at, missing[-1], entry)
        self.note_merged(entry, at)
        return at

    def _follow(self, parent_key: int, link: Name) -> tuple[int, list[bytes]]:
        """Return where the symbolic link *link* in *parent_key* leads; see WorkingTree.resolve."""
        self.fresh.write()
        return self._tree.resolve(parent_key, self._tree.read_link(link.node))

    def _make(self, parent_key: int, name: bytes, entry: Row | None) -> int:
        """Make the implied directory *name*. *entry* is its row, None if only a symbolic link's text names it."""
        self.prepare(parent_key, None if entry is None else entry.parent)
        if entry is not None and self.state[entry.row] == UNSEEN and not entry.flags & MARKERS:
            key = self._base | entry.row
        else:
            key = self._tree.invent()
            self.touched.add(key)
        self._tree.put_directory(
            parent_key, name, Name(key, self._attributes_below(parent_key, key), self._layer, key, 0)
        )
        if entry is not None:
            self.note_made(entry, key)
        return key

    def _attributes_below(self, parent_key: int, key: int) -> bytes:
        """Return the attributes of the directory *key*, implied in *parent_key*."""
        if parent_key >> LAYER_SHIFT == self._layer and self.state[parent_key & ROW_MASK] == FRESH:
            parent = self._implied.get(parent_key) or self._index.row(parent_key & ROW_MASK).attributes
        else:
            parent = self._tree.attributes(parent_key)
        attributes = implied_below(parent)
        if attributes != IMPLIED_DIRECTORY:
            self._implied[key] = attributes
        return attributes

    def note_made(self, entry: Row, key: int) -> None:
        """Remember the directory *key*, just made for *entry*: fresh, unless links led to it or it is a second one."""
        if key == self._base | entry.row and entry.row not in self._redirected and entry.parent not in self._redirected:
            self.state[entry.row] = FRESH
        else:
            self.note_merged(entry, key)

    def note_merged(self, entry: Row, directory: int) -> None:
        """Remember that *entry* stands for *directory*."""
        self.set_merged(entry.row)
        self._keys[entry.row] = directory
        if entry.parent in self._redirected:
            self._redirected.add(entry.row)
        if directory >> LAYER_SHIFT == self._layer:
            self._tree.share(directory)  # its entries may go elsewhere

    def set_merged(self, row: int) -> None:
        """Remember that the entries of the directory *row* are looked up one by one, and never copied."""
        self.state[row] = MERGED
        self._attached.copy_no_entries_of(row)
        self.merged.append(row)

    def take_merged(self) -> list[int]:
        """Return the rows of *merged* and empty it."""
        taken, self.merged = self.merged, []
        return taken

    def forget_redirected(self) -> None:
        """Forget all look-ups: a link or directory that a redirected directory leads through may be gone.

        If no directory is redirected, none can be gone: whiteouts keep what was touched, and a layer has one row a
        path.
        """
        if self._redirected:
            self._keys = {ROOT_ROW: ROOT}

    def _demote(self, parent_key: int, row: int | None) -> None:
        """If *parent_key* is a FRESH directory that another row than *row* made, make it MERGED."""
        made = parent_key & ROW_MASK
        if parent_key >> LAYER_SHIFT == self._layer and made != row and self.state[made] == FRESH:
            self.fresh.write()
            self._tree.share(parent_key)
            self.set_merged(made)
            self._keys[made] = parent_key

    def prepare(self, parent_key: int, row: int | None) -> None:
        """Note that an entry of the directory *row* is about to be written into *parent_key*."""
        self._demote(parent_key, row)
        self.touch(parent_key)

    def touch(self, directory: int) -> None:
        """Remember that *directory* and its parents contain an entry of this layer. Stops at a known parent."""
        while directory != ROOT and not self.is_touched(directory):
            self.touched.add(directory)
            directory = self._tree.parent(directory)

    def is_touched(self, directory: int) -> bool:
        return directory >> LAYER_SHIFT == self._layer or directory in self.touched
