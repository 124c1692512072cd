"""WorkingTree: the tree that the merge builds: what a directory would hold after the layers so far were unpacked in it.

It is an unnamed SQLite database, which spills to a deleted temporary file when it outgrows its page cache, so that a
million entries cost no memory (apply.py shows its rows before and after a layer):

    names(parent, name, node, attributes, layer, directory, flags)       one row a name, PRIMARY KEY (parent, name)
    directories(id INTEGER PRIMARY KEY, parent, node, attributes)        attributes only where the node's row has others

A directory has an *id* of its own, the key of the row that made it, which stays when an upper layer gives it other
attributes; its *node* is the key of the row that decides its attributes. `parent` and `directory` are such ids. The
root's is 0, and it has no name. Used by the merge alone; one thread. Methods raise sqlite3.Error if the disk is full.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from regfs.errors import TooLarge
from regfs.model.attributes import Attributes, mode_of, with_nlink
from regfs.model.layer_entry import EntryFlag, Row
from regfs.model.node_id import INVENTED_LAYER, LAST_INVENTED_ROW, node_key
from regfs.model.path_walk import PathWalk
from regfs.store.tables.shared_database import read_only_uri

ROOT = 0
EXPLICIT = 1
"""A directory that a tar entry of any layer describes."""
LINKED = 2
"""A file that may have further hard links: its names are counted when the merge is finished."""
IMPLIED_DIRECTORY = Attributes(stat.S_IFDIR | 0o755, size=4096, nlink=2).pack()

_SCHEMA = f"""
CREATE TABLE names (parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL, attributes BLOB NOT NULL,
    layer INTEGER NOT NULL, directory INTEGER, flags INTEGER NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TABLE directories (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, node INTEGER NOT NULL,
    attributes BLOB);
CREATE INDEX directories_by_parent ON directories (parent);
CREATE INDEX linked_names ON names (node) WHERE flags & {LINKED};
CREATE TABLE not_copied (row INTEGER PRIMARY KEY);
CREATE TABLE doomed (id INTEGER PRIMARY KEY);
CREATE TABLE link_counts (node INTEGER PRIMARY KEY, count INTEGER NOT NULL);
"""
_DOOM = """
INSERT INTO doomed WITH RECURSIVE below(id) AS (
    SELECT ? UNION ALL SELECT d.id FROM below JOIN directories d ON d.parent = below.id) SELECT id FROM below
"""
# The type is in the top half of the mode's second byte, 4 for a directory; the link count follows the mode. A hard
# link's row has no attributes of its own: its inode's are used.
_COPY = f"""
INSERT OR IGNORE INTO names
SELECT :base | parent, name, :base | inode, attributes, :layer,
    CASE WHEN is_directory THEN :base | row END,
    CASE WHEN is_directory THEN {EXPLICIT} WHEN substr(attributes, 57, 4) != x'01000000' THEN {LINKED} ELSE 0 END
FROM (SELECT row, parent, name, inode, substr(attributes, 54, 1) BETWEEN x'40' AND x'4f' AS is_directory,
          coalesce(attributes, (SELECT i.attributes FROM layer.entries i WHERE i.row = e.inode)) AS attributes
      FROM layer.entries e
      WHERE row > :after AND row <= :last AND parent >= 0 AND flags & ~{EntryFlag.OPAQUE:d} = 0
          AND parent NOT IN (SELECT row FROM not_copied))
"""  # noqa: S608
_LOOKUP = "SELECT node, attributes, layer, directory, flags FROM names WHERE parent = ? AND name = ?"
_PUT = "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT_LINKS = f"""
INSERT INTO link_counts SELECT node, count(*) FROM names WHERE flags & {LINKED} GROUP BY node ORDER BY node
"""  # noqa: S608
# The names of one inode all have its attributes.
_WRITE_LINKS = f"""
INSERT OR REPLACE INTO merged.links
SELECT n.node, with_nlink(n.attributes, c.count) FROM link_counts c CROSS JOIN names n
    ON n.node = c.node AND n.flags & {LINKED}
WHERE with_nlink(n.attributes, c.count) != n.attributes GROUP BY n.node
"""  # noqa: S608
# CROSS JOIN keeps SQLite from swapping the loops: names come out in the order of their primary key.
_WRITE_ENTRIES = f"""
INSERT INTO merged.entries (parent, name, node, attributes)
SELECT p.node, n.name, n.node,
    CASE WHEN n.directory IS NOT NULL
             THEN with_nlink(n.attributes, 2 + (SELECT count(*) FROM directories s WHERE s.parent = n.directory))
         WHEN n.flags & {LINKED}
             THEN with_nlink(n.attributes, (SELECT c.count FROM link_counts c WHERE c.node = n.node))
         ELSE n.attributes END
FROM names n CROSS JOIN directories p ON p.id = n.parent ORDER BY n.parent, n.name
"""  # noqa: S608
_NOWHERE = -1


class Name(NamedTuple):
    """One name of the tree, as the table has it. *layer* wrote it last; *directory* is None for other types."""

    node: int
    attributes: bytes
    layer: int
    directory: int | None
    flags: int


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

    def __init__(self, row_of: Callable[[int], Row]) -> None:
        """Begin with an empty root. *row_of* returns the row of a node."""
        self._row_of = row_of
        self._invented = 0
        self.root_node = node_key(INVENTED_LAYER, 0)
        self.root_attributes = IMPLIED_DIRECTORY
        self._root_is_explicit = False
        self._connection = sqlite3.connect("file:", uri=True, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32000", "temp_store = FILE"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)
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
        return node_key(INVENTED_LAYER, self._invented)

    def lookup(self, directory: int, name: bytes) -> Name | None:
        """Return the entry *name* of *directory*, or None."""
        found = self._connection.execute(_LOOKUP, (directory, name)).fetchone()
        return Name._make(found) if found else None

    def parent(self, directory: int) -> int:
        """Return the parent of *directory*; the root is its own."""
        found = self._connection.execute("SELECT parent FROM directories WHERE id = ?", (directory,)).fetchone()
        return ROOT if directory == ROOT or found is None else found[0]

    def set_root(self, node: int, attributes: bytes, *, explicit: bool) -> None:
        """Give the root the attributes of row *node*, unless *node* is implied and a lower layer describes the root."""
        if self._root_is_explicit and not explicit:
            return
        self._root_is_explicit = explicit
        self.root_node, self.root_attributes = node, attributes
        self._connection.execute("UPDATE directories SET node = ? WHERE id = ?", (node, ROOT))

    def put(self, directory: int, name: bytes, entry: Name) -> None:
        """Write *entry*. It replaces an entry of that name, which must not be a directory."""
        self._connection.execute(_PUT, (directory, name, *entry))

    def put_directory(self, directory: int, name: bytes, entry: Name) -> None:
        """Write the directory *entry*: a new one, or an existing one with another node or attributes."""
        self.put(directory, name, entry)
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
        return IMPLIED_DIRECTORY if node >= node_key(INVENTED_LAYER, 0) else self._row_of(node).attributes

    def read_link(self, node: int) -> bytes:
        """Return the text of the symbolic link *node*."""
        return self._row_of(node).target or b""

    def put_implied(self, names: list[tuple[int, bytes, int, bytes, int, int, int]]) -> None:
        """Write new directories, given as rows of `names`."""
        self._connection.executemany("INSERT INTO names VALUES (?, ?, ?, ?, ?, ?, ?)", names)

    def put_parents(self, directories: list[tuple[int, int, int, bytes | None]]) -> None:
        """Write rows of `directories`; copy_entries() or put_implied() writes their names."""
        self._connection.executemany("INSERT INTO directories VALUES (?, ?, ?, ?)", directories)

    @contextmanager
    def reading(self, layer: Path) -> Iterator[None]:
        """Attach the index file *layer* for copy_entries()."""
        self._connection.execute("ATTACH DATABASE ? AS layer", (read_only_uri(layer, immutable=True),))
        self._connection.execute("BEGIN")
        yield
        self._connection.execute("DELETE FROM not_copied")
        self._connection.execute("COMMIT")
        self._connection.execute("DETACH DATABASE layer")

    def copy_no_entries_of(self, row: int) -> None:
        """Let copy_entries() leave out the entries of the layer's directory *row* from now on."""
        self._connection.execute("INSERT OR IGNORE INTO not_copied VALUES (?)", (row,))

    def copy_entries(self, layer: int, after: int, last: int) -> None:
        """Copy the plain entries among the rows *after* < row <= *last* of the attached index, which is *layer*'s.

        Names that exist already stay: their entries were applied one by one.
        """
        self._connection.execute(_COPY, {"base": node_key(layer, 0), "layer": layer, "after": after, "last": last})

    def remove_name(self, directory: int, name: bytes) -> None:
        """Remove an entry that is not a directory."""
        self._connection.execute("DELETE FROM names WHERE parent = ? AND name = ?", (directory, name))

    def remove_others(self, directory: int, *, layer: int) -> None:
        """Remove the entries of *directory* that are not directories and were not written by *layer*."""
        self._connection.execute(
            "DELETE FROM names WHERE parent = ? AND directory IS NULL AND layer != ?", (directory, layer)
        )

    def subdirectories(self, directory: int) -> list[tuple[bytes, int]]:
        """Return name and id of the directories in *directory*."""
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
        """Write all names into the merged table *destination*, each directory's together and sorted."""
        run = self._connection.execute
        run("ATTACH DATABASE ? AS merged", (f"file:{quote(os.fsencode(destination))}",))
        run("PRAGMA merged.journal_mode = OFF")
        run("PRAGMA merged.synchronous = OFF")
        run("PRAGMA merged.cache_size = -16000")
        run("BEGIN")
        run(_COUNT_LINKS)
        run(_WRITE_LINKS)
        run(_WRITE_ENTRIES)
        run("COMMIT")
        run("DETACH DATABASE merged")
