"""WorkingTree: the tree that the merge builds: what a directory would hold after the layers so far were unpacked in it.

It is an unnamed SQLite database, which spills to a deleted temporary file when it outgrows its page cache, so that a
million entries cost no memory (apply.py shows its rows before and after a layer):

    names(parent, name, node, attributes, layer, directory, flags)       one row a name, PRIMARY KEY (parent, name);
                                                                         names of shared directories alone
    directories(id INTEGER PRIMARY KEY, parent, node, attributes)        attributes only where the node's row has others

A directory has an *id* of its own, the key of the row that made it, which stays when an upper layer gives it other
attributes; its *node* is the key of the row that decides its attributes. `parent` and `directory` are such ids. The
root's is 0, and it has no name. An *unshared* directory is what one layer alone says (unshared_directories.py): it has
a row in `directories`, and none of its entries has one in `names` until something is written there. What a shared
directory is in is shared too. Used by the merge alone; one thread. Methods raise sqlite3.Error if the disk is full,
CacheFailure.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regfs.errors import TooLarge
from regfs.model.attributes import Attributes, mode_of, with_nlink
from regfs.model.layer_entry import ROOT_ROW
from regfs.model.node_id import INVENTED_LAYER, LAST_INVENTED_ROW, LAYER_SHIFT, ROW_MASK, node_key
from regfs.model.path_walk import PathWalk
from regfs.rootfs.attached_layer import ATTACHED_SCHEMA, AttachedLayer
from regfs.rootfs.finished_tree import write_tree
from regfs.rootfs.unshared_directories import EXPLICIT, LINKED, Name, UnsharedDirectories
from regfs.store.layers.layer_index import LayerIndex

ROOT = 0
IMPLIED_DIRECTORY = Attributes(stat.S_IFDIR | 0o755, size=4096, nlink=2).pack()

_SCHEMA = f"""
CREATE TABLE names (parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL, attributes BLOB NOT NULL,
    layer INTEGER NOT NULL, directory INTEGER, flags INTEGER NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TABLE directories (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, node INTEGER NOT NULL,
    attributes BLOB);
CREATE INDEX directories_by_parent ON directories (parent);
CREATE INDEX linked_names ON names (node) WHERE flags & {LINKED};
CREATE TABLE doomed (id INTEGER PRIMARY KEY);
"""
_DOOM = """
INSERT INTO doomed WITH RECURSIVE below(id) AS (
    SELECT ? UNION ALL SELECT d.id FROM below JOIN directories d ON d.parent = below.id) SELECT id FROM below
"""
_LOOKUP = "SELECT node, attributes, layer, directory, flags FROM names WHERE parent = ? AND name = ?"
_COPY_NAME = "INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT = "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, ?, ?, ?)"
_NOWHERE = -1


def implied_below(parent: bytes) -> bytes:
    """Return the attributes of an implied directory, made in a directory that has the attributes *parent*.

    As Linux does it for umoci: a directory inherits group and setgid bit from a setgid parent.
    """
    if not mode_of(parent) & stat.S_ISGID:
        return IMPLIED_DIRECTORY
    gid = Attributes.unpack(parent).gid
    return Attributes(stat.S_IFDIR | stat.S_ISGID | 0o755, size=4096, nlink=2, gid=gid).pack()


class WorkingTree:
    """A tree of names, changed in the order of the layers' entries."""

    def __init__(self, layers: Sequence[LayerIndex]) -> None:
        """Begin with an empty root; the entries of *layers* (base first) are applied next."""
        self._unshared = UnsharedDirectories(layers)
        self._shared = {ROOT}
        self._applied = -1
        self._invented = 0
        self.root_node = node_key(INVENTED_LAYER, 0)
        self.root_attributes = IMPLIED_DIRECTORY
        self._root_is_explicit = False
        self._connection = sqlite3.connect("file:", uri=True, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32000", "temp_store = FILE"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA + ATTACHED_SCHEMA)
        self._connection.create_function("with_nlink", 2, with_nlink, deterministic=True)
        self._connection.execute("INSERT INTO directories VALUES (?, ?, ?, NULL)", (ROOT, _NOWHERE, self.root_node))

    def close(self) -> None:
        """Close the database, which deletes it."""
        self._connection.close()

    def invent(self) -> int:
        """Return a new key, for a directory that no layer has a row for. Raises TooLarge."""
        self._invented += 1
        if self._invented > LAST_INVENTED_ROW:
            raise TooLarge(f"the image has more than {LAST_INVENTED_ROW} directories that no layer describes")
        key = node_key(INVENTED_LAYER, self._invented)
        self._shared.add(key)
        return key

    def lookup(self, directory: int, name: bytes) -> Name | None:
        """Return the entry *name* of *directory*, or None."""
        if directory not in self._shared:
            return self._unshared.lookup(directory, name)
        found = self._connection.execute(_LOOKUP, (directory, name)).fetchone()
        return Name._make(found) if found else None

    def parent(self, directory: int) -> int:
        """Return the parent of *directory*; the root is its own."""
        found = self._connection.execute("SELECT parent FROM directories WHERE id = ?", (directory,)).fetchone()
        return ROOT if directory == ROOT or found is None else found[0]

    def share(self, directory: int) -> None:
        """Write the names of *directory*, and of those that it is in, so that they can be changed."""
        while directory not in self._shared:
            self._shared.add(directory)
            self._connection.executemany(_COPY_NAME, self._unshared.entries(directory))
            if directory >> LAYER_SHIFT == self._applied:  # further entries of it may follow
                self._attached.copy_entries_of(directory & ROW_MASK)
            found = self._connection.execute("SELECT parent FROM directories WHERE id = ?", (directory,)).fetchone()
            directory = found[0] if found else self._unshared.parent(directory)

    def set_root(self, node: int, attributes: bytes, *, explicit: bool) -> None:
        """Give the root the attributes of row *node*, unless *node* is implied and a lower layer describes the root."""
        if self._root_is_explicit and not explicit:
            return
        self._root_is_explicit = explicit
        self.root_node, self.root_attributes = node, attributes
        self._connection.execute("UPDATE directories SET node = ? WHERE id = ?", (node, ROOT))

    def put(self, directory: int, name: bytes, entry: Name) -> None:
        """Write *entry*. It replaces an entry of that name, which must not be a directory."""
        self.share(directory)
        self._connection.execute(_PUT, (directory, name, *entry))

    def put_directory(self, directory: int, name: bytes, entry: Name) -> None:
        """Write the directory *entry*: a new one, or an existing one with another node or attributes."""
        self.put(directory, name, entry)
        if entry.directory is not None and entry.node != entry.directory:
            self.share(entry.directory)  # its node no longer tells which entries it has
        own = None if entry.flags & EXPLICIT or entry.attributes == IMPLIED_DIRECTORY else entry.attributes
        self._connection.execute(
            "INSERT OR REPLACE INTO directories VALUES (?, ?, ?, ?)", (entry.directory, directory, entry.node, own)
        )

    def attributes(self, directory: int) -> bytes:
        """Return the attributes of *directory* (without the right link count)."""
        if directory == ROOT:
            return self.root_attributes
        node, own = self._connection.execute(
            "SELECT node, attributes FROM directories WHERE id = ?", (directory,)
        ).fetchone()
        if own is not None:
            return bytes(own)
        return IMPLIED_DIRECTORY if node >= node_key(INVENTED_LAYER, 0) else self._unshared.row(node).attributes

    def read_link(self, node: int) -> bytes:
        """Return the text of the symbolic link *node*."""
        return self._unshared.row(node).target or b""

    def put_implied(self, names: list[tuple[int, bytes, int, bytes, int, int, int]]) -> None:
        """Write new directories, given as rows of `names`."""
        self._connection.executemany("INSERT INTO names VALUES (?, ?, ?, ?, ?, ?, ?)", names)

    def put_parents(self, directories: list[tuple[int, int, int, bytes | None]]) -> None:
        """Write rows of `directories`; copy_entries() or put_implied() writes their names."""
        self._connection.executemany("INSERT INTO directories VALUES (?, ?, ?, ?)", directories)

    @contextmanager
    def applying(self, layer: int, index: LayerIndex) -> Iterator[AttachedLayer]:
        """Attach the *index* of the layer number *layer* while it is applied."""
        attached = AttachedLayer(self._connection, layer, index=index, unshared=self._unshared)
        self._shared.update(node_key(layer, row) for row in attached.shared() if row != ROOT_ROW)
        self._attached, self._applied = attached, layer
        yield attached
        attached.detach()

    def remove_name(self, directory: int, name: bytes) -> None:
        """Remove an entry that is not a directory."""
        self.share(directory)
        self._connection.execute("DELETE FROM names WHERE parent = ? AND name = ?", (directory, name))

    def remove_others(self, directory: int, *, layer: int) -> None:
        """Remove the entries of *directory* that are not directories and were not written by *layer*."""
        self.share(directory)
        self._connection.execute(
            "DELETE FROM names WHERE parent = ? AND directory IS NULL AND layer != ?", (directory, layer)
        )

    def subdirectories(self, directory: int) -> list[tuple[bytes, int]]:
        """Return name and id of the directories in *directory*."""
        self.share(directory)
        return self._connection.execute(
            "SELECT name, directory FROM names WHERE parent = ? AND directory IS NOT NULL", (directory,)
        ).fetchall()

    def count_subdirectories(self, directory: int) -> int:
        """Return how many directories are in *directory*."""
        found = self._connection.execute("SELECT count(*) FROM directories WHERE parent = ?", (directory,))
        return int(found.fetchone()[0])

    def remove_tree(self, directory: int, name: bytes, removed: int, *, layer: int) -> list[int]:
        """Remove the directory *removed*, which is *name* in *directory*, with all below it.

        Return the ids of the directories among them that *layer* made.
        """
        self.share(directory)
        run = self._connection.execute
        run("DELETE FROM doomed")
        run(_DOOM, (removed,))
        run("DELETE FROM names WHERE parent IN (SELECT id FROM doomed)")
        run("DELETE FROM directories WHERE id IN (SELECT id FROM doomed)")
        self.remove_name(directory, name)
        first, stop = node_key(layer, 0), node_key(layer + 1, 0)
        return [row[0] for row in run("SELECT id FROM doomed WHERE id >= ? AND id < ?", (first, stop))]

    def resolve(self, directory: int, path: bytes) -> tuple[int, list[bytes]]:
        """Follow *path* from *directory*, through symbolic links, and never out of the root.

        Return the deepest directory reached, and the names from there on that the tree does not have (or that are no
        directories). `..` takes a missing name back by its spelling alone. Raises BadLayer for a loop of links, or for
        names that Linux does not allow. Source: the rules of securejoin (github.com/cyphar/filepath-securejoin), which
        umoci resolves with.
        """
        walk = PathWalk(path.split(b"/"))
        at = ROOT if path.startswith(b"/") else directory
        missing: list[bytes] = []
        while (name := walk.next()) is not None:
            if name == b"..":
                if missing:
                    missing.pop()
                else:
                    at = self.parent(at)
                continue
            found = None if missing else self.lookup(at, name)
            if found is None or not (found.directory is not None or stat.S_ISLNK(mode_of(found.attributes))):
                missing.append(name)
            elif found.directory is not None:
                at = found.directory
            else:
                at = walk.follow(self.read_link(found.node), at, root=ROOT)
        return at, missing

    def write(self, destination: Path) -> None:
        """Write what layers share into the merged table *destination*, each directory's names together and sorted."""
        write_tree(self._connection, self._shared, self._unshared, destination)
