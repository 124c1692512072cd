"""Applies one layer to the working tree: its entries one after the other, as an unpacker would write them.

Example: the base has a symbolic link; the layer above writes through it, deletes a file, and adds a directory.

    layer 0 (base)          layer 1                the rows that it becomes
    1  etc/                 1  etc/                implied: no tar entry describes it
    2  etc/motd             2  etc/.wh.motd        whiteout
    3  lib -> usr/lib       3  lib/                implied
    4  usr/                 4  lib/x
    5  usr/lib/             5  srv/
                            6  srv/a

The table `names` (working_tree.py) before and after layer 1. A node `1:4` is row 4 of layer 1, and `/` is the root:

    parent  name   before                     after
    /       etc    0:1  directory 0:1         0:1  directory 0:1      an implied directory keeps the lower attributes
    /       lib    0:3                        0:3                     a symbolic link stays, unpackers follow it
    /       srv                               1:5  directory 1:5      unshared: its entry `a` is in layer 1's index
    /       usr    0:4  directory 0:4         0:4  directory 0:4
    0:4     lib                               0:5  directory 0:5      usr and usr/lib have become shared,
    0:5     x                                 1:4                     for lib/x has gone to usr/lib

The directories of layer 0 are unshared before: their entries are in its index alone. The whiteout makes `etc` a shared
directory as well, which is empty.

layer_directories.py finds the directory that an entry goes into. What an earlier entry of the same layer wrote survives
the layer's whiteouts (umoci's "upper paths"). Used by merge.py; one thread.
Source: image-spec, layer.md, "Applying Changesets"; the behaviour of umoci 0.4.7 and containerd's archive.Apply.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain
from posixpath import normpath

from regfs.errors import BadLayer
from regfs.model.attributes import mode_of
from regfs.model.layer_entry import NOWHERE, ROOT_ROW, EntryFlag, Row
from regfs.model.node_id import ROW_MASK, node_key
from regfs.model.whiteout import OPAQUE_MARKER, hidden_name, marker_of
from regfs.rootfs.attached_layer import AttachedLayer
from regfs.rootfs.layer_directories import AUFS, FRESH, UNSEEN, LayerDirectories
from regfs.rootfs.unshared_directories import EXPLICIT, LINKED, Name
from regfs.rootfs.working_tree import ROOT, WorkingTree

# Plain numbers: an operation on an IntFlag takes longer than the rest of an entry's turn in run().
_WHITEOUT, _OPAQUE_MARKER, _OPAQUE = int(EntryFlag.WHITEOUT), int(EntryFlag.OPAQUE_MARKER), int(EntryFlag.OPAQUE)
_IMPLIED, _LINK_BELOW = int(EntryFlag.IMPLIED), int(EntryFlag.LINK_BELOW)
# An opaque directory is written like any other; all other flags need a closer look.
_REMARKABLE = ~_OPAQUE
_ONE_NAME = (1).to_bytes(4, "little")
_NLINK = slice(56, 60)
_SHOWN = 300

Visit = tuple[int, int, int, int, int | None]
"""Row, parent, inode, flags, whether it is a directory."""
_END: Visit = (ROW_MASK + 1, ROOT_ROW, ROOT_ROW, 0, 0)


class LayerApplication:
    """Writes the entries of the layer *attached* into *tree*."""

    def __init__(self, tree: WorkingTree, attached: AttachedLayer, *, hidden: frozenset[bytes] = frozenset()) -> None:
        """Names in the layer's root that are in *hidden* are left out, unless they are directories."""
        index = attached.index
        rows = [index.lookup(ROOT_ROW, name) for name in sorted(hidden)]
        self._hidden = frozenset(row.row for row in rows if row and not stat.S_ISDIR(mode_of(row.attributes)))
        self._tree = tree
        self._attached = attached
        self._layer = attached.number
        self._index = index
        self._base = node_key(attached.number, 0)
        self._directories = LayerDirectories(tree, attached)
        self._cleared: set[int] = set()
        # Rows that are hard links to a file of a lower layer: its node and attributes.
        self._below: dict[int, tuple[int, bytes]] = {}

    def run(self) -> None:
        """Apply all entries. Raises BadLayer, naming layer and path, if an unpacker would refuse the layer."""
        state, base, below, fresh = self._directories.state, self._base, self._below, self._directories.fresh
        self._apply_root(self._index.row(ROOT_ROW))
        for row, parent, inode, flags, is_directory in self._visits():
            if row in self._hidden:
                continue
            if flags & _REMARKABLE or parent < 0 or state[parent] != FRESH or inode in below:
                fresh.seen = row - 1
                self._apply(self._index.row(row))
            elif is_directory:
                key = base | row
                state[row] = FRESH
                fresh.directories.append((key, base | parent, key, None))
            fresh.seen = row
        fresh.seen = self._index.last_row()
        fresh.write()

    def _visits(self) -> Iterator[Visit]:
        """Yield the outline, and plain entries of directories that are not FRESH, in the order of the archive.

        A directory becomes MERGED at any entry; from then on its entries are visited.
        """
        begun: set[int] = set()
        waiting: list[tuple[int, int, Iterator[int]]] = []
        at = ROOT_ROW
        for visit in chain(self._attached.outline(), [_END]):
            while True:
                for directory in self._directories.take_merged():
                    if directory not in begun:
                        begun.add(directory)
                        _wait(waiting, directory, iter(self._attached.plain_rows(directory, after=at)))
                if not waiting or waiting[0][0] > visit[0]:
                    break
                at, directory, rows = heappop(waiting)
                _wait(waiting, directory, rows)
                yield at, directory, at, 0, False
            if visit is _END:
                return
            at = visit[0]
            if visit[3] & _REMARKABLE and visit[4]:
                self._directories.merged.append(at)  # UNSEEN until the first of its entries is visited
            yield visit

    def _apply_root(self, root: Row) -> None:
        """Apply the root's attributes. The base layer's root is FRESH, like every directory that a layer makes.

        If names in it are hidden, its entries are visited, too.
        """
        self._tree.set_root(self._base, root.attributes, explicit=not root.flags & _IMPLIED)
        if self._layer == 0 and not self._hidden:
            self._directories.state[ROOT_ROW] = FRESH
        else:
            self._directories.set_merged(ROOT_ROW)

    def _apply(self, entry: Row) -> None:
        """Apply *entry*. Adds layer and path to the message of a BadLayer."""
        try:
            self._dispatch(entry)
        except BadLayer as error:
            path = self._path(entry)[-_SHOWN:].decode(errors="backslashreplace")
            raise BadLayer(f"layer {self._layer}: {path}: {error}") from error

    def _dispatch(self, entry: Row) -> None:
        flags = entry.flags
        if flags & _LINK_BELOW:
            self._link_below(entry)
        elif flags & (AUFS | _IMPLIED) or entry.parent == NOWHERE:
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
        self._directories.hidden_in = None

    # Entries

    def _put_directory(self, entry: Row) -> None:
        """Make a directory, or give the existing one this entry's attributes."""
        parent_key = self._directories.find_or_make(entry.parent)
        if parent_key is None:
            return
        self._directories.prepare(parent_key, entry.parent)
        row, name = entry.row, entry.name
        found = self._tree.lookup(parent_key, name)
        if found is None or found.directory is None:
            key = self._base | row if self._directories.state[row] == UNSEEN else self._tree.invent()
            if found is not None:
                self._directories.forget_redirected()
            self._tree.put_directory(parent_key, name, Name(key, entry.attributes, self._layer, key, EXPLICIT))
            self._directories.note_made(entry, key)
            return
        merged = Name(self._base | row, entry.attributes, self._layer, found.directory, EXPLICIT)
        self._tree.put_directory(parent_key, name, merged)
        self._directories.touch(found.directory)
        self._directories.note_merged(entry, found.directory)
        if entry.flags & _OPAQUE and not self._is_marked(entry):
            self._clear(found.directory)

    def _put_file(self, entry: Row) -> None:
        """Put a file, link or device in place of any existing entry."""
        parent_key = self._directories.find_or_make(entry.parent)
        if parent_key is None:
            return
        self._clobber(parent_key, entry)
        if entry.inode in self._below:
            node, attributes = self._below[entry.inode]
            flags = LINKED
        else:
            node, attributes = self._base | entry.inode, entry.attributes
            flags = 0 if attributes[_NLINK] == _ONE_NAME else LINKED
        self._tree.put(parent_key, entry.name, Name(node, attributes, self._layer, None, flags))

    def _link_below(self, entry: Row) -> None:
        """Put a hard link to a file of a lower layer. Its path is resolved in the tree as it is at this entry."""
        parent_key = None
        if entry.parent != NOWHERE:
            parent_key = self._directories.find_or_make(entry.parent)
            if parent_key is None:
                return
            self._clobber(parent_key, entry)
            self._tree.remove_name(parent_key, entry.name)
        self._directories.fresh.write()
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
        if parent_key is not None:
            self._tree.put(parent_key, entry.name, found._replace(layer=self._layer, flags=LINKED))

    def _white_out(self, entry: Row) -> None:
        """Apply a whiteout: remove what lower layers have under the name. What this layer has already written stays."""
        name = hidden_name(entry.name)
        parent_key = self._directories.find(entry.parent)
        found = None if parent_key is None else self._tree.lookup(parent_key, name)
        if parent_key is None or found is None:
            return
        if found.directory is None:
            if found.layer != self._layer:
                self._directories.forget_redirected()
                self._tree.remove_name(parent_key, name)
        elif self._directories.is_touched(found.directory):
            self._clear(found.directory)
        else:
            self._remove(parent_key, name, found.directory)

    def _make_opaque(self, entry: Row) -> None:
        """Apply an opaque marker: remove everything that lower layers have in the marker's directory."""
        parent_key = self._directories.find(entry.parent)
        if parent_key is not None:
            self._clear(parent_key)

    # Removing

    def _clobber(self, parent_key: int, entry: Row) -> None:
        """Remove what *entry*, which is not a directory, replaces in *parent_key*."""
        self._directories.prepare(parent_key, entry.parent)
        found = self._tree.lookup(parent_key, entry.name)
        if found is not None and found.directory is not None:
            self._remove(parent_key, entry.name, found.directory)
        elif found is not None:
            self._directories.forget_redirected()

    def _remove(self, parent_key: int, name: bytes, directory: int) -> None:
        """Remove *directory*, which is *name* in *parent_key*, with all below it."""
        self._directories.fresh.write()
        for made in self._tree.remove_tree(parent_key, name, directory, layer=self._layer):
            self._directories.set_merged(made & ROW_MASK)
        self._directories.forget_redirected()

    def _clear(self, directory: int) -> None:
        """Remove from *directory* and below it what this layer has not written or passed through."""
        self._directories.fresh.write()
        directories = [directory]
        while directories:
            directory = directories.pop()
            if directory in self._cleared:
                continue  # what came after the first marker is from this layer, so a second one needs no walk
            self._cleared.add(directory)
            self._tree.remove_others(directory, layer=self._layer)
            for name, below in self._tree.subdirectories(directory):
                if not self._directories.is_touched(below):
                    self._remove(directory, name, below)
                elif below in self._directories.touched:
                    directories.append(below)
        self._directories.forget_redirected()

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


def _wait(waiting: list[tuple[int, int, Iterator[int]]], directory: int, rows: Iterator[int]) -> None:
    """Put the next of *rows*, entries of *directory*, into the heap *waiting*."""
    row = next(rows, None)
    if row is not None:
        heappush(waiting, (row, directory, rows))
