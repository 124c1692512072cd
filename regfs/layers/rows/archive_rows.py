"""Applies the entries of one layer in tar order; what they result in are the rows of the layer's index.

An unpacker applies an archive to a file system; here it is applied to names and numbers alone, so that the order of
entries no longer matters to the merge of layers:

- the last entry of a path wins; a non-directory removes a directory's whole subtree, a directory over a directory only
  changes its attributes, and one over something else hides what lower layers have below that path (OPAQUE);
- directories that no entry describes are implied; a parent that is a symbolic link of this layer is followed, within
  the root;
- a hard link names the inode that its target has at that moment, and keeps it when the target's name is replaced later:
  the inode's row then stays, without a name (parent -1). A target that this layer does not have is LINK_BELOW;
- whiteouts hide what lower layers have, in any order: a directory of the same name in this layer is OPAQUE.

Where archives are odd this does what umoci 0.4.7 does (oci/layer/tar_extract.go). Memory is about 160 bytes
an entry, and 250 a directory. One thread.
"""

from __future__ import annotations

import stat
from array import array
from collections import Counter
from itertools import compress

from regfs.errors import BadLayer, TooLarge
from regfs.layers.rows.entry_row import entry_row, implied_row
from regfs.layers.rows.sink import RowSink
from regfs.layers.tar.paths import PATH_MAX, components_of, is_plain_name
from regfs.layers.tar.tar_reader import HARD_LINK, TarEntry
from regfs.model.layer_entry import NOWHERE, ROOT_ROW, EntryFlag, Row
from regfs.model.node_id import MAX_ROWS
from regfs.model.path_walk import PathWalk
from regfs.model.whiteout import PREFIX, hidden_name, mark_of, marker_of

# A row's state: what it is (0: gone) ...
DIRECTORY, SYMLINK, FILE = 1, 2, 3
_KIND = 3
# ... and what finish() writes about it.
_OPAQUE, _ORPHAN, _WHITEOUT = 4, 8, 16
_UNCHANGED = bytes((DIRECTORY, SYMLINK, FILE))
_IS_DIRECTORY = bytes(state & _KIND == DIRECTORY for state in range(256))

_MOST_KNOWN = 1 << 14
NO_NAMES = frozenset((b"", b".", b".."))


class ArchiveRows:
    """The tree of one layer while its archive is read; rows go to *rows* as they are found, changes in finish()."""

    def __init__(self, rows: RowSink) -> None:
        self._rows = rows
        self._states = bytearray([DIRECTORY])
        self._parents = array("i", [ROOT_ROW])
        self._names = [b""]
        self._children: dict[int, dict[bytes, int]] = {}
        self._targets: dict[int, bytes] = {}
        self._inodes: dict[int, int] = {}
        self._name_counts: dict[int, int] = {}
        # Rows of directories by the paths that entries spell. Valid until something is removed.
        self._directories: dict[bytes, int] = {}
        rows.add(implied_row(ROOT_ROW, ROOT_ROW, b""))

    def add(self, entry: TarEntry, content: int | None) -> None:
        """Apply one entry, whose bytes are at *content* (see model/layer_entry.py). Raises BadLayer."""
        try:
            self._add(entry, content)
        except BadLayer as error:
            raise BadLayer(f"{entry.path[:200]!r}: {error}") from None

    def add_new(
        self, path: bytes, state: int, attributes: bytes, *, content: int | None = None, target: bytes | None = None
    ) -> bool:
        """Apply a simple entry: a new name in a known directory. Returns False, and does nothing, for any other.

        *state* is DIRECTORY, SYMLINK (to *target*) or FILE. Does what add() would do, in a quarter of the time.
        """
        directory, _, name = path.rpartition(b"/")
        parent = self._directories.get(directory)
        if parent is None or name[:4] == PREFIX or name in NO_NAMES:
            return False
        names = self._children.get(parent)
        if names is None:
            names = self._children[parent] = {}
        row = len(self._states)
        if name in names or row >= MAX_ROWS or (state == DIRECTORY and PREFIX + name in names):
            return False
        self._states.append(state)
        self._parents.append(parent)
        self._names.append(name)
        names[name] = row
        if target is not None:
            self._targets[row] = target
        elif state == DIRECTORY:
            self._know_directory(path, row)
        if content is not None:
            self._rows.add_file(row, parent, name, attributes, content)
        else:
            self._rows.add(Row(row, parent, name, row, 0, attributes, None, target, None))
        return True

    def finish(self) -> None:
        """Write to the sink what later entries have changed: removed rows, names, flags and link counts."""
        states = self._states
        rows = self._rows
        if states.translate(None, _UNCHANGED):
            rows.remove(row for row, state in enumerate(states) if not state)
            rows.rename((row, NOWHERE, b"%d" % row) for row, state in enumerate(states) if state & _ORPHAN)
            rows.add_flags((row for row, state in enumerate(states) if state & _OPAQUE), EntryFlag.OPAQUE)
        rows.set_nlinks((row, count) for row, count in self._name_counts.items() if count > 1)
        subdirectories = Counter(compress(self._parents[1:], states.translate(_IS_DIRECTORY)[1:]))
        rows.set_nlinks((row, 2 + count) for row, count in subdirectories.items())

    def _add(self, entry: TarEntry, content: int | None) -> None:
        parent, name = self._place(entry.path)
        if not name:
            self._describe_root(entry)
            return
        mark = mark_of(name, in_root=parent == ROOT_ROW)
        if mark:
            self._add_whiteout(entry, parent, name, mark=mark, content=content)
        elif entry.kind == stat.S_IFDIR:
            self._add_directory(entry, parent, name, mark=mark)
        elif entry.kind == HARD_LINK:
            self._add_hard_link(entry, parent, name)
        else:
            self._add_file(entry, parent, name, mark=mark, content=content)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the directory row and the name that *path* means, b"" for the root; make the parents it implies."""
        directory, _, name = path[: -1 if path.endswith(b"/") else None].rpartition(b"/")
        known = self._directories.get(directory)
        if known is not None and len(path) < PATH_MAX and is_plain_name(name):
            return known, name
        components = components_of(path)
        if not components:
            return ROOT_ROW, b""
        name = components.pop()
        parent = self._directory(components)
        if is_plain_name(path.rstrip(b"/").rpartition(b"/")[2]):
            self._know_directory(directory, parent)
        return parent, name

    def _know_directory(self, path: bytes, row: int) -> None:
        if len(self._directories) >= _MOST_KNOWN:
            self._directories.clear()
        self._directories[path] = row

    def _describe_root(self, entry: TarEntry) -> None:
        if entry.kind != stat.S_IFDIR:
            raise BadLayer("the root of a layer can only be a directory")
        self._rows.add(entry_row(ROOT_ROW, ROOT_ROW, b"", entry))

    def _add_directory(self, entry: TarEntry, parent: int, name: bytes, *, mark: int) -> None:
        row = self._child(parent, name)
        if row is None or self._states[row] & _KIND != DIRECTORY:
            state = DIRECTORY | (_WHITEOUT if mark else 0)
            if row is not None:
                self._remove(row, name)
                state |= _OPAQUE
            row = self._new_row(parent, name, state | self._whited_out(parent, name))
        self._rows.add(entry_row(row, parent, name, entry, flags=mark))

    def _add_file(self, entry: TarEntry, parent: int, name: bytes, *, mark: int, content: int | None) -> None:
        """Add anything but a directory or a hard link."""
        self._remove_if_there(parent, name)
        target = None
        if entry.kind == stat.S_IFLNK:
            target = entry.link
            if not 0 < len(target) < PATH_MAX:
                raise BadLayer(f"a symbolic link to a path of {len(target)} bytes")
        if mark:
            row = self._new_row(parent, name, FILE | _WHITEOUT)
        elif target is not None:
            row = self._new_row(parent, name, SYMLINK)
            self._targets[row] = target
        else:
            row = self._new_row(parent, name, FILE)
        self._rows.add(entry_row(row, parent, name, entry, flags=mark, content=content, target=target))

    def _add_whiteout(self, entry: TarEntry, parent: int, name: bytes, *, mark: int, content: int | None) -> None:
        """Add a whiteout as it is stored; its type means nothing.

        Unpackers make no file for it, so that an implied directory of that name stays.
        """
        found = self._child(parent, name)
        is_there = found is not None and self._states[found] & _KIND == DIRECTORY
        if entry.kind == stat.S_IFDIR:
            self._add_directory(entry, parent, name, mark=mark)
        elif found is not None and is_there:
            self._rows.add(implied_row(found, parent, name, mark=mark))
        else:
            plain = entry._replace(kind=stat.S_IFREG) if entry.kind == HARD_LINK else entry
            self._add_file(plain, parent, name, mark=mark, content=content)
        if found is not None and is_there:
            self._states[found] |= _WHITEOUT
        if mark == EntryFlag.OPAQUE_MARKER:
            self._states[parent] |= _OPAQUE
        elif mark == EntryFlag.WHITEOUT:
            hidden = self._child(parent, hidden_name(name))
            if hidden is not None and self._states[hidden] & _KIND == DIRECTORY:
                self._states[hidden] |= _OPAQUE

    def _add_hard_link(self, entry: TarEntry, parent: int, name: bytes) -> None:
        # Unpackers remove the old name first, so that a link to itself has no target.
        self._remove_if_there(parent, name)
        found, path = self._find(entry.link)
        if found is None or self._states[found] & _WHITEOUT:
            if path == self._path(parent, name):
                raise BadLayer("a hard link to itself")
            self._link_below(entry, parent, name, path)
            return
        state = self._states[found]
        if state & _KIND == DIRECTORY:
            raise BadLayer(f"a hard link to the directory {path!r}")
        inode = self._inodes.get(found, found)
        row = self._new_row(parent, name, state & _KIND)
        self._inodes[row] = inode
        self._name_counts[inode] = self._name_counts.get(inode, 1) + 1
        self._rows.add(Row(row, parent, name, inode, 0, b"", None, None, None))

    def _link_below(self, entry: TarEntry, parent: int, name: bytes, path: bytes) -> None:
        row = self._new_row(parent, name, FILE)
        file = entry._replace(kind=stat.S_IFREG)
        self._rows.add(entry_row(row, parent, name, file, flags=EntryFlag.LINK_BELOW, target=path))

    def _directory(self, components: list[bytes]) -> int:
        """Return the row of the directory at *components*, implying what is missing. Raises BadLayer."""
        walk = PathWalk(components)
        row, name = self._walk(walk, ROOT_ROW)
        while name is not None:
            child = self._child(row, name)
            if child is None:
                directory = self._imply(row, name)
            elif self._states[child] & _WHITEOUT:
                self._remove(child, name)
                directory = self._imply(row, name, mark=mark_of(name, in_root=row == ROOT_ROW))
            else:
                raise BadLayer(f"{self._path(row, name)!r} is not a directory")
            row, name = self._walk(walk, directory)
        return row

    def _find(self, path: bytes) -> tuple[int | None, bytes]:
        """Return the row at *path*, its last component not followed, or None; and the path with all links resolved.

        Raises BadLayer.
        """
        components = components_of(path)
        if not components:
            raise BadLayer("a hard link to the root")
        last = components.pop()
        walk = PathWalk(components)
        row, name = self._walk(walk, ROOT_ROW)
        if name is None:
            return self._child(row, last), self._path(row, last)
        if self._child(row, name) is not None:
            raise BadLayer(f"a hard link to {path[:200]!r}, which is below no directory")
        return None, b"/".join(components_of(b"/".join([self._path(row, name), *walk.rest(), last])))

    def _walk(self, walk: PathWalk, row: int) -> tuple[int, bytes | None]:
        """Walk on from the directory *row*; return where the walk ends, and the name there that is not a directory.

        The name is None if the walk reached its end. Symbolic links are followed. Raises BadLayer.
        """
        while (name := walk.next()) is not None:
            child = self._parents[row] if name == b".." else self._child(row, name)
            kind = 0 if child is None else self._states[child] & _KIND
            if child is not None and kind == DIRECTORY:
                row = child
            elif child is not None and kind == SYMLINK:
                row = walk.follow(self._target(child), row, root=ROOT_ROW)
            else:
                return row, name
        return row, None

    def _imply(self, parent: int, name: bytes, *, mark: int = 0) -> int:
        """Add a directory that no entry describes; *mark* is that of the marker that it replaces."""
        state = DIRECTORY | self._whited_out(parent, name) | (_WHITEOUT if mark else 0)
        row = self._new_row(parent, name, state)
        self._rows.add(implied_row(row, parent, name, mark=mark))
        return row

    def _child(self, parent: int, name: bytes) -> int | None:
        names = self._children.get(parent)
        return None if names is None else names.get(name)

    def _whited_out(self, parent: int, name: bytes) -> int:
        """Return _OPAQUE for a new directory whose name this layer whites out: the whiteout is about lower layers."""
        marker = self._child(parent, marker_of(name))
        return 0 if marker is None or not self._states[marker] & _WHITEOUT else _OPAQUE

    def _new_row(self, parent: int, name: bytes, state: int) -> int:
        row = len(self._states)
        if row >= MAX_ROWS:
            raise TooLarge(f"the layer has more than {MAX_ROWS} entries")
        self._states.append(state)
        self._parents.append(parent)
        self._names.append(name)
        names = self._children.get(parent)
        if names is None:
            self._children[parent] = {name: row}
        else:
            names[name] = row
        return row

    def _remove_if_there(self, parent: int, name: bytes) -> None:
        row = self._child(parent, name)
        if row is not None:
            self._remove(row, name)

    def _remove(self, row: int, name: bytes) -> None:
        """Remove the name and all below it; inodes that have other names stay."""
        self._directories.clear()
        del self._children[self._parents[row]][name]
        removed = [row]
        while removed:
            row = removed.pop()
            removed.extend(self._children.pop(row, {}).values())
            inode = self._inodes.pop(row, row)
            left = self._name_counts.get(inode, 1) - 1
            if row != inode:
                self._states[row] = 0
            elif left:
                self._states[row] |= _ORPHAN
            if left:
                self._name_counts[inode] = left
            else:
                self._states[inode] = 0
                self._name_counts.pop(inode, None)
                self._targets.pop(inode, None)

    def _target(self, row: int) -> bytes:
        return self._targets[self._inodes.get(row, row)]

    def _path(self, parent: int, name: bytes) -> bytes:
        """Return the path of *name* in the directory row *parent*. Raises BadLayer where Linux takes no such path."""
        names = [name]
        length = len(name)
        while parent != ROOT_ROW:
            names.append(self._names[parent])
            length += len(names[-1]) + 1
            if length >= PATH_MAX:  # symbolic links can lead deeper than any path
                raise BadLayer(f"a path of more than {PATH_MAX} bytes, which ends in {name[:60]!r}")
            parent = self._parents[parent]
        return b"/".join(reversed(names))
