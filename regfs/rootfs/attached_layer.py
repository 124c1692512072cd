"""The layer that is being applied: its index, attached to the database of the working tree.

The merge visits directories and rows that mean more than their attributes, in the order of the archive; plain entries
only where it must. The rest are left to the index (unshared_directories.py), or copied by SQLite many at once:

    outline(row, parent, inode, flags, is_directory)     what is visited: directories, hard links, and remarkable rows
    copied(row)                                          directories of the layer whose plain entries are copied

Used by working_tree.py and apply.py; one thread. Methods raise sqlite3.Error if the disk is full, CacheFailure.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from typing import Any

from regfs.model.layer_entry import ROOT_ROW, EntryFlag
from regfs.model.node_id import node_key
from regfs.rootfs.unshared_directories import EXPLICIT, LINKED, UnsharedDirectories
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.tables.shared_database import read_only_uri

ATTACHED_SCHEMA = """
CREATE TABLE outline (row INTEGER PRIMARY KEY, parent INTEGER NOT NULL, inode INTEGER NOT NULL, flags INTEGER NOT NULL,
    is_directory INTEGER);
CREATE TABLE copied (row INTEGER PRIMARY KEY);
"""
# The type is in the top half of the mode's second byte, 4 for a directory; the link count follows the mode. A hard
# link's row has no attributes of its own: its inode's are used.
_IS_DIRECTORY = "substr(attributes, 54, 1) BETWEEN x'40' AND x'4f'"
_IS_PLAIN = f"flags & ~{EntryFlag.OPAQUE:d} = 0"
_FILL_OUTLINE = f"""
INSERT INTO outline SELECT row, parent, inode, flags, {_IS_DIRECTORY} FROM layer.entries
WHERE row != 0 AND ({_IS_DIRECTORY} OR inode != row OR NOT {_IS_PLAIN} OR parent < 0) ORDER BY row
"""  # noqa: S608
# What comes before its parent in the archive, and hard links to lower layers, are remarkable too.
_REMARKABLE = f"""
SELECT row, parent, is_directory FROM outline WHERE NOT {_IS_PLAIN} OR parent > row
    OR inode != row AND inode IN (SELECT row FROM outline WHERE flags & {EntryFlag.LINK_BELOW:d})
"""  # noqa: S608
_PLAIN_ROWS = f"""
SELECT row FROM layer.entries
WHERE parent = ? AND row > ? AND {_IS_PLAIN} AND row NOT IN (SELECT row FROM outline) ORDER BY row
"""  # noqa: S608
_COPY = f"""
INSERT OR IGNORE INTO names
SELECT :base | parent, name, :base | inode, attributes, :layer,
    CASE WHEN is_directory THEN :base | row END,
    CASE WHEN is_directory THEN {EXPLICIT} WHEN substr(attributes, 57, 4) != x'01000000' THEN {LINKED} ELSE 0 END
FROM (SELECT e.row, e.parent, e.name, e.inode, {_IS_DIRECTORY} AS is_directory,
          coalesce(attributes, (SELECT i.attributes FROM layer.entries i WHERE i.row = e.inode)) AS attributes
      FROM %s WHERE e.row > :after AND e.row <= :last AND {_IS_PLAIN})
"""  # noqa: S608
_COPY_SOME = _COPY % "layer.entries e JOIN copied c ON c.row = +e.parent"
_COPY_MANY = _COPY % "copied c CROSS JOIN layer.entries e ON e.parent = c.row"
# Below that many rows, a scan of them is faster than a look-up of each directory's entries.
_MANY = 10_000


class AttachedLayer:
    """The *index* of the layer *number*, attached to *connection* from the construction until detach()."""

    def __init__(
        self, connection: sqlite3.Connection, number: int, *, index: LayerIndex, unshared: UnsharedDirectories
    ) -> None:
        self._connection = connection
        self.number = number
        self.index = index
        self._unshared = unshared
        connection.execute("ATTACH DATABASE ? AS layer", (read_only_uri(index.path, immutable=True),))
        connection.execute("BEGIN")
        connection.execute(_FILL_OUTLINE)
        if connection.execute("SELECT EXISTS (SELECT 1 FROM outline WHERE inode != row)").fetchone()[0]:
            unshared.linked.append(number)
        unshared.show(number, ROOT_ROW)

    def detach(self) -> None:
        """End the work with the layer; all its entries are visible."""
        self._unshared.show(self.number, self.index.last_row())
        for statement in ("DELETE FROM outline", "DELETE FROM copied", "COMMIT", "DETACH DATABASE layer"):
            self._connection.execute(statement)

    def shared(self) -> set[int]:
        """Return the rows of directories that are shared from the start; the root is one.

        Their plain entries are copied. In an upper layer the root's are applied one by one instead: it has others.
        """
        shared = {ROOT_ROW}
        for row, parent, is_directory in self._connection.execute(_REMARKABLE).fetchall():
            if is_directory:
                shared.add(row)
            at = parent
            while at > ROOT_ROW and at not in shared:
                shared.add(at)
                at = self.index.row(at).parent
        copied = shared if self.number == 0 else shared - {ROOT_ROW}
        self._connection.executemany("INSERT INTO copied VALUES (?)", ((row,) for row in copied))
        return shared

    def outline(self) -> Iterator[Any]:
        """Yield (row, parent, inode, flags, whether it is a directory) of what must be visited, by row.

        The last is None for a hard link.
        """
        return iter(self._connection.execute("SELECT * FROM outline ORDER BY row"))

    def plain_rows(self, directory: int, *, after: int) -> array[int]:
        """Return the rows behind the row *after* that are entries of *directory* and not in the outline."""
        return array("I", (row for (row,) in self._connection.execute(_PLAIN_ROWS, (directory, after))))

    def copy_entries_of(self, row: int) -> None:
        """Let copy_entries() copy the entries of the layer's directory *row* from now on."""
        self._connection.execute("INSERT OR IGNORE INTO copied VALUES (?)", (row,))

    def copy_no_entries_of(self, row: int) -> None:
        """Let copy_entries() leave out the entries of the layer's directory *row* from now on."""
        self._connection.execute("DELETE FROM copied WHERE row = ?", (row,))

    def copy_entries(self, after: int, last: int) -> None:
        """Make the plain entries among the rows *after* < row <= *last* visible, and copy those of shared directories.

        Names that exist already stay: their entries were applied one by one.
        """
        self._connection.execute(
            _COPY_MANY if last - after > _MANY else _COPY_SOME,
            {"base": node_key(self.number, 0), "layer": self.number, "after": after, "last": last},
        )
        self._unshared.show(self.number, last)
