"""Writes the finished working tree (working_tree.py) into a merged table, in the order in which it is read.

The names of shared directories are copied; of unshared ones, the topmost are noted. Hard links are counted over both:
names of unshared directories are read from the layers' indexes. Used by merge.py; one thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from regfs.model.attributes import with_nlink
from regfs.model.node_id import node_key
from regfs.rootfs.unshared_directories import LINKED, UnsharedDirectories

_SCHEMA = """
CREATE TABLE shared (id INTEGER PRIMARY KEY);
CREATE TABLE link_counts (node INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE unshared_links (directory INTEGER NOT NULL, node INTEGER NOT NULL, stored BLOB NOT NULL);
"""
_COUNT_LINKS = f"""
INSERT INTO link_counts SELECT node, count(*) FROM names WHERE flags & {LINKED} GROUP BY node ORDER BY node
"""  # noqa: S608
_DROP_HIDDEN_LINKS = """
DELETE FROM unshared_links
WHERE directory IN (SELECT id FROM shared) OR directory NOT IN (SELECT id FROM directories)
"""
_COUNT_UNSHARED_LINKS = """
INSERT INTO link_counts SELECT node, count(*) FROM unshared_links WHERE true GROUP BY node ORDER BY node
ON CONFLICT (node) DO UPDATE SET count = count + excluded.count
"""
# The names of one inode all have its attributes.
_WRITE_LINKS = f"""
INSERT OR REPLACE INTO merged.links
SELECT n.node, with_nlink(n.attributes, c.count) FROM link_counts c CROSS JOIN names n
    ON n.node = c.node AND n.flags & {LINKED}
WHERE with_nlink(n.attributes, c.count) != n.attributes GROUP BY n.node
"""  # noqa: S608
_CHANGED_UNSHARED_LINKS = """
SELECT DISTINCT u.node, c.count FROM unshared_links u CROSS JOIN link_counts c ON c.node = u.node
WHERE with_count(u.stored) != c.count AND u.node NOT IN (SELECT node FROM merged.links)
"""
_UNSHARED = """
INSERT INTO merged.unshared SELECT n.node, p.node FROM names n CROSS JOIN directories p ON p.id = n.parent
WHERE n.directory IS NOT NULL AND n.directory NOT IN (SELECT id FROM shared) ORDER BY n.node
"""
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


def write_tree(
    connection: sqlite3.Connection, shared: Collection[int], unshared: UnsharedDirectories, destination: Path
) -> None:
    """Write the tree of *connection*, whose directories *shared* have their names there, into *destination*.

    The rest are *unshared*. Raises sqlite3.Error, CacheFailure.
    """
    run = connection.execute
    run("ATTACH DATABASE ? AS merged", (f"file:{quote(os.fsencode(destination))}",))
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16000"):
        run(f"PRAGMA merged.{pragma}")
    connection.create_function("with_count", 1, _stored_count, deterministic=True)
    run("BEGIN")
    for statement in _SCHEMA.split(";"):
        run(statement)
    connection.executemany("INSERT INTO shared VALUES (?)", ((directory,) for directory in shared))
    connection.executemany("INSERT INTO unshared_links VALUES (?, ?, ?)", _links_of(unshared))
    for statement in (_DROP_HIDDEN_LINKS, _COUNT_LINKS, _COUNT_UNSHARED_LINKS, _WRITE_LINKS):
        run(statement)
    changed = run(_CHANGED_UNSHARED_LINKS).fetchall()
    connection.executemany(
        "INSERT INTO merged.links VALUES (?, ?)",
        ((node, with_nlink(unshared.row(node).attributes, count)) for node, count in changed),
    )
    run(_WRITE_ENTRIES)
    run(_UNSHARED)
    run("COMMIT")
    run("DETACH DATABASE merged")


def _links_of(unshared: UnsharedDirectories) -> Iterator[tuple[int, int, bytes]]:
    """Yield directory, node and stored link count of all names with hard links, shown or not."""
    for number in unshared.linked:
        base = node_key(number, 0)
        for parent, inode, stored in unshared.layers[number].linked_names():
            yield base | parent, base | inode, stored


def _stored_count(stored: bytes) -> int:
    return int.from_bytes(stored, "little")
