"""Which directory of the working tree each directory of a layer stands for.

A directory of the layer is looked up when its first real entry comes, never before: unpackers make parents then, and a
directory that only holds whiteouts is never made. Its row has one of three states:

    FRESH    the layer itself made the directory, at its own path: nothing of other layers can be in it, and SQLite
             copies its entries by itself, many at once (fresh_entries.py)
    PLACED   it existed already, or lies behind a symbolic link of a lower layer: each entry is looked up
    UNSEEN   no entry needed it yet

A *graft* is a directory of the layer that a symbolic link of a lower layer leads elsewhere: `lib/` where the layers
below have `lib -> usr/lib`. Used by apply.py; one thread. Methods raise sqlite3.Error if the disk is full.
Source: umoci, oci/layer/tar_extract.go.
"""

from __future__ import annotations

import stat

from regfs.errors import BadLayer
from regfs.model.attributes import mode_of
from regfs.model.layer_entry import ROOT_ROW, EntryFlag, Row
from regfs.model.node_id import LAYER_SHIFT, ROW_MASK, node_key
from regfs.rootfs.fresh_entries import FreshEntries
from regfs.rootfs.working_tree import EXPLICIT, IMPLIED_DIRECTORY, ROOT, Name, WorkingTree, implied_below
from regfs.store.layers.layer_index import LayerIndex

UNSEEN, FRESH, PLACED = 0, 1, 2
# Plain numbers: an operation on an IntFlag takes longer than the rest of an entry's turn in LayerApplication.run().
AUFS = int(EntryFlag.AUFS)
MARKERS = int(EntryFlag.WHITEOUT) | int(EntryFlag.OPAQUE_MARKER)


class LayerDirectories:
    """The directories of the layer number *layer*, whose rows are in *index*, as directories of *tree*.

    *state* has a byte for each row. *touched* holds the directories of lower layers that an entry of this layer lies
    in. *fresh* holds what was not written into the tree yet. *hidden_in* is the row of the last marker's directory and
    what it stands for, while only markers come: consecutive markers mostly share it. It is None if links lead there.
    """

    def __init__(self, tree: WorkingTree, layer: int, *, index: LayerIndex) -> None:
        self._tree = tree
        self._layer = layer
        self._index = index
        self._base = node_key(layer, 0)
        self._places: dict[int, int] = {ROOT_ROW: ROOT}
        self._grafted: set[int] = set()
        self._implied: dict[int, bytes] = {}
        self.state = bytearray(index.last_row() + 1)
        self.touched: set[int] = set()
        self.fresh = FreshEntries(tree, layer)
        self.hidden_in: tuple[int, int] | None = None

    def find_or_make(self, row: int) -> int | None:
        """Return the directory of the tree that *row* stands for, and make those that are missing on the way.

        None for a directory of AUFS's own bookkeeping, which no merge shows. Raises BadLayer.
        """
        place, chain = self._nearest(row)
        for entry in chain:
            if entry.flags & AUFS:
                self.set_placed(row)
                return None
            place = self._enter(place, entry)
        return place

    def find(self, row: int) -> int | None:
        """Return the directory of the tree that *row* stands for, for a marker in it; None where there is none.

        A marker makes no directory, and a fresh directory holds nothing that a marker could hide.
        """
        if self.state[row] == FRESH:
            return None
        if self.hidden_in is not None and self.hidden_in[0] == row:
            return self.hidden_in[1]
        place, chain = self._nearest(row)
        leads_through_links = bool(self._grafted)
        for entry in chain:
            found = None if entry.flags & AUFS else self._tree.lookup(place, entry.name)
            if found is None:
                return None
            if found.directory is not None:
                place = found.directory
                continue
            if not stat.S_ISLNK(mode_of(found.attributes)):
                return None
            place, missing = self._follow(place, found)
            if missing:
                return None
            leads_through_links = True
        self.hidden_in = None if leads_through_links else (row, place)
        return place

    def _nearest(self, row: int) -> tuple[int, list[Row]]:
        """Return the nearest known place at or above the directory *row*, and the rows from there down to it."""
        chain: list[Row] = []
        while self.state[row] != FRESH and row not in self._places:
            chain.append(self._index.row(row))
            row = chain[-1].parent
        return (self._base | row if self.state[row] == FRESH else self._places[row]), chain[::-1]

    def _enter(self, place: int, entry: Row) -> int:
        """Return the directory that *entry*, a directory in *place*, stands for; make it if it is missing."""
        row, parent, name = entry.row, entry.parent, entry.name
        is_own = self.state[row] == UNSEEN and not entry.flags & MARKERS  # a marker's attributes are no directory's
        if self.state[parent] == FRESH and is_own:
            key = self._base | row
            self.state[row] = FRESH
            attributes = self._attributes_below(place, key)
            own = self._implied.get(key)
            self.fresh.names.append((place, name, key, attributes, self._layer, key, 0))
            self.fresh.directories.append((key, place, key, own))
            return key
        self._demote(place, parent)
        found = self._tree.lookup(place, name)
        if found is None:
            return self._make(place, name, entry)
        if found.directory is not None:
            if not found.flags & EXPLICIT and is_own:
                self._tree.put_directory(place, name, found._replace(node=self._base | row))
            self.note_placed(entry, found.directory)
            return found.directory
        shown = name.decode(errors="backslashreplace")
        if not stat.S_ISLNK(mode_of(found.attributes)):
            raise BadLayer(f"{shown!r} is no directory in the layers below")
        self._grafted.add(row)
        at, missing = self._follow(place, found)
        if missing:
            if self._tree.lookup(at, missing[0]) is not None:
                raise BadLayer(f"{shown!r} leads to something that is no directory in the layers below")
            for link in missing[:-1]:
                at = self._make(at, link, None)
            at = self._make(at, missing[-1], entry)
        self.note_placed(entry, at)
        return at

    def _follow(self, place: int, link: Name) -> tuple[int, list[bytes]]:
        """Return where the symbolic link *link* of *place* leads, as WorkingTree.resolve does."""
        self.fresh.write()
        return self._tree.resolve(place, self._tree.read_link(link.node))

    def _make(self, place: int, name: bytes, entry: Row | None) -> int:
        """Make the implied directory *entry*; None for one that only a symbolic link's text names."""
        self.prepare(place, None if entry is None else entry.parent)
        if entry is not None and self.state[entry.row] == UNSEEN and not entry.flags & MARKERS:
            key = self._base | entry.row
        else:
            key = self._tree.invent()
            self.touched.add(key)
        self._tree.put_directory(place, name, Name(key, self._attributes_below(place, key), self._layer, key, 0))
        if entry is not None:
            self.note_made(entry, key)
        return key

    def _attributes_below(self, place: int, key: int) -> bytes:
        """Return the attributes of the directory *key*, implied in *place*."""
        if place >> LAYER_SHIFT == self._layer and self.state[place & ROW_MASK] == FRESH:
            parent = self._implied.get(place) or self._index.row(place & ROW_MASK).attributes
        else:
            parent = self._tree.attributes(place)
        attributes = implied_below(parent)
        if attributes != IMPLIED_DIRECTORY:
            self._implied[key] = attributes
        return attributes

    def note_made(self, entry: Row, key: int) -> None:
        """Remember the directory *key*, just made for *entry*: fresh, unless links led to it or it is a second one."""
        if key == self._base | entry.row and entry.row not in self._grafted and entry.parent not in self._grafted:
            self.state[entry.row] = FRESH
        else:
            self.note_placed(entry, key)

    def note_placed(self, entry: Row, directory: int) -> None:
        """Remember that *entry* stands for *directory*."""
        self.set_placed(entry.row)
        self._places[entry.row] = directory
        if entry.parent in self._grafted:
            self._grafted.add(entry.row)

    def set_placed(self, row: int) -> None:
        """Remember that the entries of the directory *row* are looked up one by one, and never copied."""
        self.state[row] = PLACED
        self._tree.copy_no_entries_of(row)

    def forget_grafts(self) -> None:
        """Look every directory up again: a symbolic link or directory that a graft leads through may be gone.

        Without grafts nothing can be gone: whiteouts leave what was touched, and a layer has one row a path.
        """
        if self._grafted:
            self._places = {ROOT_ROW: ROOT}

    def _demote(self, place: int, row: int | None) -> None:
        """If *place* is the fresh directory of another row than *row*, look its entries up from now on."""
        made = place & ROW_MASK
        if place >> LAYER_SHIFT == self._layer and made != row and self.state[made] == FRESH:
            self.fresh.write()
            self.set_placed(made)
            self._places[made] = place

    def prepare(self, place: int, row: int | None) -> None:
        """Get ready to write an entry of the directory *row* into *place*."""
        self._demote(place, row)
        self.touch(place)

    def touch(self, directory: int) -> None:
        """Remember that an entry of this layer is in *directory* (a loop over its parents, until a known one)."""
        while directory != ROOT and not self.is_touched(directory):
            self.touched.add(directory)
            directory = self._tree.parent(directory)

    def is_touched(self, directory: int) -> bool:
        return directory >> LAYER_SHIFT == self._layer or directory in self.touched
