"""Applying a layer: its entries change the working tree one after the other, as an unpacker's would.

Where a directory of the layer goes is found out when its first real entry comes, never before: unpackers make parents
then, and a directory that only holds whiteouts is never made. Three cases, told apart by *state*:

    fresh    the layer itself made the directory, at its own path: nothing of other layers can be in it, and its
             entries are copied by SQLite alone, many at once (fresh_entries.py)
    placed   it was there already, or lies behind a symbolic link of a lower layer: each entry is looked up
    (none)   no entry needed it yet

What an earlier entry of the same layer wrote survives the layer's whiteouts (umoci's "upper paths"); *touched* holds
the directories of lower layers that such an entry lies in. Used by the merge alone; one thread.
Source: image-spec, layer.md, "Applying Changesets"; the behaviour of umoci 0.4.7 and containerd's archive.Apply.
"""

from __future__ import annotations

import stat
from posixpath import normpath

from regfs.errors import BadLayer
from regfs.model.attributes import mode_of
from regfs.model.layer_entry import NOWHERE, ROOT_ROW, EntryFlag, Row
from regfs.model.node_id import LAYER_SHIFT, ROW_MASK, node_key
from regfs.model.whiteout import OPAQUE_MARKER, hidden_name, marker_of
from regfs.rootfs.fresh_entries import FreshEntries
from regfs.rootfs.working_tree import EXPLICIT, IMPLIED_DIRECTORY, LINKED, ROOT, Name, WorkingTree, implied_below
from regfs.store.layer_index import LayerIndex

_UNSEEN, _FRESH, _PLACED = 0, 1, 2
# Plain numbers: each operation on an IntFlag takes longer than all the rest of an entry's turn in run().
_WHITEOUT, _OPAQUE_MARKER, _OPAQUE = int(EntryFlag.WHITEOUT), int(EntryFlag.OPAQUE_MARKER), int(EntryFlag.OPAQUE)
_IMPLIED, _LINK_BELOW, _AUFS = int(EntryFlag.IMPLIED), int(EntryFlag.LINK_BELOW), int(EntryFlag.AUFS)
_MARKERS = _WHITEOUT | _OPAQUE_MARKER
_REMARKABLE = ~_OPAQUE
_ONE_NAME = (1).to_bytes(4, "little")
_NLINK = slice(56, 60)
_SHOWN = 300


class LayerApplication:
    """One layer on its way into the tree."""

    def __init__(self, tree: WorkingTree, layer: int, *, index: LayerIndex) -> None:
        self._tree = tree
        self._layer = layer
        self._index = index
        self._base = node_key(layer, 0)
        self._state = bytearray(index.last_row() + 1)
        self._places: dict[int, int] = {ROOT_ROW: ROOT}
        self._grafted: set[int] = set()
        self._touched: set[int] = set()
        self._cleared: set[int] = set()
        # The last marker's directory and its place, while nothing but markers comes: most of them have it in common.
        # What they hide is in that place or elsewhere, and never on a way to it that leads through no symbolic link.
        self._hidden_in: tuple[int, int] | None = None
        self._below: dict[int, tuple[int, bytes]] = {}
        self._fresh = FreshEntries(tree, layer)
        self._implied: dict[int, bytes] = {}

    def run(self) -> None:
        """Apply all entries. Raises BadLayer where an unpacker would refuse the layer, naming layer and path."""
        self._apply_root(self._index.row(ROOT_ROW))
        state, base, below, fresh = self._state, self._base, self._below, self._fresh
        with self._tree.reading(self._index.path):
            for row, parent, inode, flags, is_directory in self._index.outline():
                if flags & _REMARKABLE or parent < 0 or state[parent] != _FRESH or inode in below:
                    self._apply(self._index.row(row))
                elif is_directory:
                    key = base | row
                    state[row] = _FRESH
                    fresh.directories.append((key, base | parent, key, None))
                fresh.seen = row
            fresh.write()

    def _apply_root(self, root: Row) -> None:
        """Take the root's attributes; the base layer's root is as fresh as any directory that a layer makes."""
        self._tree.set_root(self._base, root.attributes, explicit=not root.flags & _IMPLIED)
        if self._layer == 0:
            self._state[ROOT_ROW] = _FRESH
        else:
            self._set_placed(ROOT_ROW)

    def _apply(self, entry: Row) -> None:
        """Apply *entry*, adding layer and path to what may be wrong with it."""
        try:
            self._dispatch(entry)
        except BadLayer as error:
            path = self._path(entry)[-_SHOWN:].decode(errors="backslashreplace")
            raise BadLayer(f"layer {self._layer}: {path}: {error}") from error

    def _dispatch(self, entry: Row) -> None:
        flags = entry.flags
        if flags & _LINK_BELOW:
            self._link_below(entry)
        elif flags & (_AUFS | _IMPLIED) or entry.parent == NOWHERE:
            return
        elif flags & _WHITEOUT:
            self._white_out(entry)
            return
        elif flags & _OPAQUE_MARKER:
            self._make_opaque(entry)
        elif stat.S_ISDIR(mode_of(entry.attributes)):
            self._put_directory(entry)
        else:
            self._put_file(entry)
        self._hidden_in = None

    # Entries

    def _put_directory(self, entry: Row) -> None:
        """Make a directory, or give the one that is there this entry's attributes."""
        place = self._place(entry.parent)
        if place is None:
            return
        self._prepare(place, entry.parent)
        row, name = entry.row, entry.name
        found = self._tree.lookup(place, name)
        if found is None or found.directory is None:
            key = self._base | row if self._state[row] == _UNSEEN else self._tree.invent()
            if found is not None:
                self._forget_grafts()
            self._tree.put_directory(place, name, Name(key, entry.attributes, self._layer, key, EXPLICIT))
            self._note_made(entry, key)
            return
        merged = Name(self._base | row, entry.attributes, self._layer, found.directory, EXPLICIT)
        self._tree.put_directory(place, name, merged)
        self._touch(found.directory)
        self._note_placed(entry, found.directory)
        if entry.flags & _OPAQUE and not self._is_marked(entry):
            self._clear(found.directory)

    def _put_file(self, entry: Row) -> None:
        """Put anything but a directory in the place of whatever is there."""
        place = self._place(entry.parent)
        if place is None:
            return
        self._clobber(place, entry)
        if entry.inode in self._below:
            node, attributes = self._below[entry.inode]
            flags = LINKED
        else:
            node, attributes = self._base | entry.inode, entry.attributes
            flags = 0 if attributes[_NLINK] == _ONE_NAME else LINKED
        self._tree.put(place, entry.name, Name(node, attributes, self._layer, None, flags))

    def _link_below(self, entry: Row) -> None:
        """Put a hard link to a file of a lower layer, as things are at this entry of the archive."""
        place = None
        if entry.parent != NOWHERE:
            place = self._place(entry.parent)
            if place is None:
                return
            self._clobber(place, entry)
            self._tree.remove_name(place, entry.name)
        self._fresh.write()
        target = normpath(b"/" + (entry.target or b"")).lstrip(b"/")
        directory, _, name = target.rpartition(b"/")
        at, missing = self._tree.resolve(ROOT, directory)
        found = None if missing or not name else self._tree.lookup(at, name)
        shown = target.decode(errors="backslashreplace")
        if not name or (found is not None and found.directory is not None):
            raise BadLayer(f"a hard link to {shown!r}, which is a directory")
        if found is None:
            raise BadLayer(f"a hard link to {shown!r}, which neither this layer nor a lower one has")
        self._below[entry.row] = found.node, found.attributes
        self._tree.put(at, name, found._replace(flags=LINKED))
        if place is not None:
            self._tree.put(place, entry.name, found._replace(layer=self._layer, flags=LINKED))

    def _white_out(self, entry: Row) -> None:
        """Hide a name of lower layers; what this layer has put there so far stays."""
        name = hidden_name(entry.name)
        place = self._existing(entry.parent)
        found = None if place is None else self._tree.lookup(place, name)
        if place is None or found is None:
            return
        if found.directory is None:
            if found.layer != self._layer:
                self._forget_grafts()
                self._tree.remove_name(place, name)
        elif self._is_touched(found.directory):
            self._clear(found.directory)
        else:
            self._remove(place, name, found.directory)

    def _make_opaque(self, entry: Row) -> None:
        """Hide all that lower layers have in the marker's directory."""
        place = self._existing(entry.parent)
        if place is not None:
            self._clear(place)

    # Places

    def _place(self, row: int) -> int | None:
        """Return the directory that the directory *row* stands for, making what is missing on the way.

        None for what lies in AUFS's book-keeping, which no merge shows.
        """
        place, chain = self._nearest(row)
        for entry in chain:
            if entry.flags & _AUFS:
                self._set_placed(row)
                return None
            place = self._enter(place, entry)
        return place

    def _existing(self, row: int) -> int | None:
        """Return the directory of the tree that a marker in the directory *row* speaks of; None if there is none.

        Nothing is made for a marker's sake, and in a fresh directory there is nothing that it could hide.
        """
        if self._state[row] == _FRESH:
            return None
        if self._hidden_in is not None and self._hidden_in[0] == row:
            return self._hidden_in[1]
        place, chain = self._nearest(row)
        leads_through_links = bool(self._grafted)
        for entry in chain:
            found = None if entry.flags & _AUFS else self._tree.lookup(place, entry.name)
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
        self._hidden_in = None if leads_through_links else (row, place)
        return place

    def _nearest(self, row: int) -> tuple[int, list[Row]]:
        """Return the nearest known place at or above the directory *row*, and the rows from there down to it."""
        chain: list[Row] = []
        while self._state[row] != _FRESH and row not in self._places:
            chain.append(self._index.row(row))
            row = chain[-1].parent
        return (self._base | row if self._state[row] == _FRESH else self._places[row]), chain[::-1]

    def _enter(self, place: int, entry: Row) -> int:
        """Return the directory that an implied *entry* in *place* stands for, made if need be."""
        row, parent, name = entry.row, entry.parent, entry.name
        is_own = self._state[row] == _UNSEEN and not entry.flags & _MARKERS  # a marker's attributes are no directory's
        if self._state[parent] == _FRESH and is_own:
            key = self._base | row
            self._state[row] = _FRESH
            attributes = self._attributes_below(place, key)
            own = self._implied.get(key)
            self._fresh.names.append((place, name, key, attributes, self._layer, key, 0))
            self._fresh.directories.append((key, place, key, own))
            return key
        self._demote(place, parent)
        found = self._tree.lookup(place, name)
        if found is None:
            return self._make(place, name, entry)
        if found.directory is not None:
            if not found.flags & EXPLICIT and is_own:
                self._tree.put_directory(place, name, found._replace(node=self._base | row))
            self._note_placed(entry, found.directory)
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
        self._note_placed(entry, at)
        return at

    def _follow(self, place: int, link: Name) -> tuple[int, list[bytes]]:
        """Return where the symbolic link *link* of *place* leads, as WorkingTree.resolve does."""
        self._fresh.write()
        return self._tree.resolve(place, self._tree.read_link(link.node))

    def _make(self, place: int, name: bytes, entry: Row | None) -> int:
        """Make an implied directory for *entry*, or one that only a symbolic link's text asks for."""
        self._prepare(place, None if entry is None else entry.parent)
        if entry is not None and self._state[entry.row] == _UNSEEN and not entry.flags & _MARKERS:
            key = self._base | entry.row
        else:
            key = self._tree.invent()
            self._touched.add(key)
        self._tree.put_directory(place, name, Name(key, self._attributes_below(place, key), self._layer, key, 0))
        if entry is not None:
            self._note_made(entry, key)
        return key

    def _attributes_below(self, place: int, key: int) -> bytes:
        """Return the attributes of the directory *key*, implied in *place*."""
        if place >> LAYER_SHIFT == self._layer and self._state[place & ROW_MASK] == _FRESH:
            parent = self._implied.get(place) or self._index.row(place & ROW_MASK).attributes
        else:
            parent = self._tree.attributes(place)
        attributes = implied_below(parent)
        if attributes != IMPLIED_DIRECTORY:
            self._implied[key] = attributes
        return attributes

    def _note_made(self, entry: Row, key: int) -> None:
        """Remember the directory *key*, just made for *entry*: fresh, unless links led to it or it is a second one."""
        if key == self._base | entry.row and entry.row not in self._grafted and entry.parent not in self._grafted:
            self._state[entry.row] = _FRESH
        else:
            self._note_placed(entry, key)

    def _note_placed(self, entry: Row, directory: int) -> None:
        """Remember that *entry* stands for *directory*."""
        self._set_placed(entry.row)
        self._places[entry.row] = directory
        if entry.parent in self._grafted:
            self._grafted.add(entry.row)

    def _set_placed(self, row: int) -> None:
        """Remember that the entries of the directory *row* are looked up one by one, and never copied."""
        self._state[row] = _PLACED
        self._tree.copy_no_entries_of(row)

    def _forget_grafts(self) -> None:
        """Find every place anew, because a symbolic link or directory that a graft leads through may be gone.

        Without grafts nothing can be gone: whiteouts leave what was touched, and a layer has one row a path.
        """
        if self._grafted:
            self._places = {ROOT_ROW: ROOT}

    def _demote(self, place: int, row: int | None) -> None:
        """Before an entry of *row* is looked up in *place*: if that is another row's fresh directory, it is no more."""
        made = place & ROW_MASK
        if place >> LAYER_SHIFT == self._layer and made != row and self._state[made] == _FRESH:
            self._fresh.write()
            self._set_placed(made)
            self._places[made] = place

    def _prepare(self, place: int, row: int | None) -> None:
        """Before an entry of *row* is written into *place*."""
        self._demote(place, row)
        self._touch(place)

    def _touch(self, directory: int) -> None:
        """Remember that an entry of this layer is in *directory* (a loop over its parents, until a known one)."""
        while directory != ROOT and not self._is_touched(directory):
            self._touched.add(directory)
            directory = self._tree.parent(directory)

    def _is_touched(self, directory: int) -> bool:
        return directory >> LAYER_SHIFT == self._layer or directory in self._touched

    # Removing

    def _clobber(self, place: int, entry: Row) -> None:
        """Make way for *entry*, which is no directory, in *place*."""
        self._prepare(place, entry.parent)
        found = self._tree.lookup(place, entry.name)
        if found is not None and found.directory is not None:
            self._remove(place, entry.name, found.directory)
        elif found is not None:
            self._forget_grafts()

    def _remove(self, place: int, name: bytes, directory: int) -> None:
        """Remove *directory*, which is *name* in *place*, with all below it."""
        self._fresh.write()
        for made in self._tree.remove_tree(place, name, directory, layer=self._layer):
            self._set_placed(made & ROW_MASK)
        self._forget_grafts()

    def _clear(self, directory: int) -> None:
        """Remove from *directory* and below it what this layer has not written or passed through."""
        self._fresh.write()
        directories = [directory]
        while directories:
            directory = directories.pop()
            if directory in self._cleared:
                continue  # all that came since is this layer's; a marker in each directory costs no walk below it
            self._cleared.add(directory)
            self._tree.remove_others(directory, layer=self._layer)
            for name, below in self._tree.subdirectories(directory):
                if not self._is_touched(below):
                    self._remove(directory, name, below)
                elif below in self._touched:
                    directories.append(below)
        self._forget_grafts()

    def _is_marked(self, entry: Row) -> bool:
        """Tell whether a marker makes *entry* opaque; else it has replaced something of its own layer."""
        marker = self._index.lookup(entry.row, OPAQUE_MARKER)
        return marker is not None or self._index.lookup(entry.parent, marker_of(entry.name)) is not None

    def _path(self, entry: Row) -> bytes:
        names = [entry.name]
        while entry.parent > ROOT_ROW:
            entry = self._index.row(entry.parent)
            names.append(entry.name)
        return b"/".join(reversed(names))
