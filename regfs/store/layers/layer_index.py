"""The index of one layer: an SQLite table, written once by the ingest and immutable from then on.

    entries(row INTEGER PRIMARY KEY, parent, name BLOB, inode, flags, attributes BLOB(80), content INTEGER,
            target BLOB, xattrs BLOB)                                                        UNIQUE (parent, name)
    chunks(start INTEGER PRIMARY KEY, number, size, blob_offset, blob_size, inner_offset, digest TEXT)     (chunks.py)
    restarts(blob_offset INTEGER PRIMARY KEY, bits, window BLOB)      of a SOCI layer: see layers/formats/ztoc.py
    headers(start INTEGER PRIMARY KEY, header, fingerprint BLOB)     of a SOCI layer: what a file's tar header says
    sparse(start INTEGER PRIMARY KEY, size, at, extents BLOB)     of a layer with sparse files: where the tar stream has
            the bytes of the one at *start* of the expanded files (sparse_map.py)
    meta(key TEXT PRIMARY KEY, value)      source, tar_size, expanded_size, expanded_sha256 (data_writer.py); blob

Row 0 is the layer's root. For a hard link (inode != row) the last four columns are NULL in the file; readers get the
inode's. A row with parent -1 has lost its name and remains as the inode of links. *content* is an offset in the layer's
data file, a multiple of 512. model/layer_entry.py describes the other columns.

*source* is "tar" where the names came from the tar stream; otherwise the name of a format with a table of contents. A
layer of the former kind may have chunks too: the spans of the one *blob* that it was read from (layers/spans.py).
The data file of a layer with a table has holes for missing chunks. The bytes `[start, start + size)` of a
chunk have *digest*; they begin at *inner_offset* of what the range `[blob_offset, blob_offset + blob_size)` of the blob
decompresses to. A blob_size of 0 marks bytes that the table has wrong. layer_index_writer.py writes it. Used by rootfs/
and the layers' own trees.

Thread rule: a LayerIndex may be used by any thread (table.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from regfs.errors import NotFound
from regfs.model.attributes import size_of
from regfs.model.digest import Digest
from regfs.model.layer_entry import ROOT_ROW, EntryFlag, Row
from regfs.store.layers.chunks import StoredChunk
from regfs.store.layers.data_writer import DataLayout
from regfs.store.layers.sparse_map import SparseMap
from regfs.store.tables.table import Table, check_header

__all__ = ["ROOT_ROW", "EntryFlag", "LayerIndex", "Row"]

APPLICATION_ID = 0x72676669  # "rgfi"
VERSION = 3
_COLUMNS = "row, parent, name, inode, flags, attributes, content, target, xattrs"
# S608 (SQL built from strings) does not apply: only the constant above is inserted.
_LOOKUP = f"SELECT {_COLUMNS} FROM entries WHERE parent = ? AND name = ?"  # noqa: S608
_BY_ROW = f"SELECT {_COLUMNS} FROM entries WHERE row = ?"  # noqa: S608
_CHILDREN = f"SELECT {_COLUMNS} FROM entries WHERE parent = ? AND row != 0 ORDER BY name"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM entries WHERE parent >= 0 AND row != 0 ORDER BY parent, name"  # noqa: S608
_OUTLINE = """
SELECT row, parent, inode, flags, substr(attributes, 54, 1) BETWEEN x'40' AND x'4f' FROM entries WHERE row != 0
ORDER BY row
"""
_DIRECTORIES = """
SELECT row, parent FROM entries WHERE row != 0 AND substr(attributes, 54, 1) BETWEEN x'40' AND x'4f' ORDER BY row
"""
_ATTRIBUTES = "coalesce(e.attributes, (SELECT i.attributes FROM entries i WHERE i.row = e.inode))"
_ENTRY = f"SELECT ? | e.inode, {_ATTRIBUTES} FROM entries e WHERE e.parent = ? AND e.name = ?"  # noqa: S608
_LISTING = f"""
SELECT e.name, ? | e.inode, {_ATTRIBUTES} FROM entries e WHERE e.parent = ? AND e.name > ? ORDER BY e.name LIMIT ?
"""  # noqa: S608
_NAME_AT = "SELECT name FROM entries WHERE parent = ? ORDER BY name LIMIT 1 OFFSET ?"
_SIZED = """
SELECT d.parent, d.attributes, (SELECT count(*) FROM entries e WHERE e.parent = d.row) FROM entries d WHERE d.row = ?
"""
_PLACES = f"""
SELECT e.parent, e.name, e.inode, {_ATTRIBUTES} FROM entries e WHERE e.parent > 0 ORDER BY e.parent, e.name
"""  # noqa: S608
_LINKED_NAMES = """
SELECT e.parent, e.inode, substr(i.attributes, 57, 4) FROM entries e CROSS JOIN entries i ON i.row = e.inode
WHERE e.parent > 0 AND e.inode IN (SELECT inode FROM entries WHERE inode != row)
"""
_STORED = "SELECT inode, attributes, content FROM entries WHERE row = ?"
_BEYOND = "SELECT content, target, xattrs FROM entries WHERE row = ?"
_FOLLOWING = """
SELECT row, attributes, content FROM entries WHERE row > ? AND row <= ? AND content IS NOT NULL
ORDER BY row LIMIT ?
"""
_INODES = """
SELECT row, content, target, xattrs FROM entries
WHERE inode = row AND (content IS NOT NULL OR target IS NOT NULL OR xattrs IS NOT NULL)
"""
_FROM_ROW = "SELECT row, parent, content FROM entries WHERE row >= ? AND content IS NOT NULL ORDER BY row LIMIT 1"
_FILES_IN = "SELECT content, attributes FROM entries WHERE parent = ? AND content IS NOT NULL LIMIT ?"
_ALIKE = """
SELECT found.row FROM entries AS parent JOIN entries AS found ON found.parent = parent.row AND found.name = ?
WHERE parent.parent = ? AND parent.row != 0 LIMIT ?
"""
_FILES = "SELECT row, attributes FROM entries WHERE content IS NOT NULL ORDER BY row"
_CONTENTS = "SELECT content, attributes FROM entries WHERE content IS NOT NULL"
_HAS_SPARSE = "SELECT 1 FROM sqlite_master WHERE name = 'sparse'"
_SPARSE = "SELECT size, at, extents FROM sparse WHERE start = ?"
_CHUNK_COLUMNS = "number, start, size, blob_offset, blob_size, inner_offset, digest"
_CHUNKS_BETWEEN = f"""
SELECT {_CHUNK_COLUMNS} FROM chunks
WHERE start >= coalesce((SELECT max(start) FROM chunks WHERE start <= ?), 0) AND start < ? ORDER BY start
"""  # noqa: S608
_CHUNKS_BY_PLACE = f"SELECT {_CHUNK_COLUMNS} FROM chunks ORDER BY blob_offset, inner_offset"  # noqa: S608
_META = "SELECT value FROM meta WHERE key = ?"
_LAYOUT = DataLayout._fields
_DEEPEST = 2048  # components of a path of PATH_MAX bytes
_NEAR = 64


class Beyond(NamedTuple):
    """What a row has beyond its attributes; see Row."""

    content: int | None = None
    target: bytes | None = None
    xattrs: bytes | None = None


class LayerIndex(Table):
    """Reads the index of one layer. Methods read the disk or memory and never wait; any thread."""

    CACHE_SIZE = 2000 << 10

    @staticmethod
    def check(connection: sqlite3.Connection, size: int) -> None:
        """Raise ValueError or sqlite3.Error unless this is an index of *size* bytes with a root."""
        check_header(connection, size, application_id=APPLICATION_ID, version=VERSION)
        if connection.execute("SELECT count(*) FROM entries WHERE row = 0").fetchone()[0] != 1:
            raise ValueError("it has no root")
        if connection.execute("SELECT count(*) FROM meta").fetchone()[0] < len(_LAYOUT):
            raise ValueError("it does not say what its data file holds")

    def lookup(self, parent: int, name: bytes) -> Row | None:
        """Return the entry *name* of the directory row *parent*, or None."""
        return self._one(_LOOKUP, (parent, name))

    def row(self, row: int) -> Row:
        """Return the row of that number. Raises NotFound."""
        found = self._one(_BY_ROW, (row,))
        if found is None:
            raise NotFound(f"{self.path}: no row {row}")
        return found

    def inode(self, row: Row) -> Row:
        """Return the row that *row* is a hard link to, or *row* itself. Raises NotFound."""
        return row if row.inode == row.row else self.row(row.inode)

    def stored(self, row: int) -> tuple[bytes, int | None]:
        """Return attributes and content of the row of that number, for open(). Raises NotFound."""
        found = self._query(_STORED, (row,))
        if not found:
            raise NotFound(f"{self.path}: no row {row}")
        inode, attributes, content = found[0]
        return (attributes, content) if inode == row else self.stored(inode)

    def beyond(self, inode: int) -> Beyond:
        """Return what the row *inode*, which is not a hard link, has beyond its attributes. Raises NotFound."""
        found = self._query(_BEYOND, (inode,))
        if not found:
            raise NotFound(f"{self.path}: no row {inode}")
        return Beyond._make(found[0])

    def following(self, row: int, limit: int) -> list[tuple[int, bytes, int]]:
        """Return (row, attributes, offset in the data file) of the files that come soon after *row* in the archive.

        At most *limit*, by row.
        """
        return self._query(_FOLLOWING, (row, row + _NEAR, limit))

    def path_of(self, row: int) -> bytes:
        """Return the path of *row* in the layer; the root's is empty. Raises NotFound."""
        names: list[bytes] = []
        while row > 0 and len(names) < _DEEPEST:
            found = self.row(row)
            names.append(found.name)
            row = found.parent
        return b"/".join(reversed(names))

    def children(self, row: int) -> list[Row]:
        """Return the entries of the directory row *row*, sorted by name."""
        return self._complete(self._query(_CHILDREN, (row,)))

    def by_directory(self) -> Iterator[Row]:
        """Yield every named row but the root, ordered by (parent, name): one scan."""
        for stored in self._batches(_ALL):
            yield from self._complete([stored])

    def outline(self) -> Iterator[tuple[int, int, int, int, int | None]]:
        """Yield (row, parent, inode, flags, whether it is a directory) of every row but the root.

        In the order of the archive, rows without a name included; the last is None for a hard link. For the merge.
        """
        return self._batches(_OUTLINE)

    def entry(self, parent: int, name: bytes, *, base: int) -> tuple[int, bytes] | None:
        """Return `base | inode` and attributes of the entry *name* of the directory row *parent*, or None."""
        found: tuple[int, bytes] | None = self._first(_ENTRY, (base, parent, name))
        return found

    def listing(self, parent: int, after: bytes, limit: int, *, base: int) -> list[tuple[bytes, int, bytes]]:
        """Return (name, `base | inode`, attributes) of at most *limit* entries of *parent* behind the name *after*."""
        return self._query(_LISTING, (base, parent, after, limit))

    def name_at(self, parent: int, position: int) -> bytes | None:
        """Return the name of the entry at *position* of the directory row *parent*; None behind the last one."""
        found = self._query(_NAME_AT, (parent, position))
        return found[0][0] if found else None

    def sized(self, row: int) -> tuple[int, bytes | None, int]:
        """Return parent and attributes of the row of that number, and how many entries it has. Raises NotFound.

        A hard link has no attributes of its own.
        """
        found = self._query(_SIZED, (row,))
        if not found:
            raise NotFound(f"{self.path}: no row {row}")
        parent, attributes, count = found[0]
        return parent, attributes, count

    def places(self) -> Iterator[tuple[int, bytes, int, bytes]]:
        """Yield (parent, name, inode, attributes) of all names below the root's directories, by (parent, name)."""
        return self._batches(_PLACES)

    def linked_names(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (parent, inode, link count as stored) of each name that is not in the root and has hard links."""
        return self._batches(_LINKED_NAMES)

    def directories(self) -> Iterator[tuple[int, int]]:
        """Yield (row, parent) of every directory but the root, in the order of the archive."""
        return self._batches(_DIRECTORIES)

    def inodes(self) -> Iterator[tuple[int, int | None, bytes | None, bytes | None]]:
        """Yield (row, content, target, xattrs) of each inode that has one of them: one scan."""
        return self._batches(_INODES)

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """Yield content (an offset in the data file) and attributes of each file that has bytes."""
        return self._batches(_CONTENTS)

    def row_of_content(self, content: int) -> int | None:
        """Return the first row of the file at that offset of the data file; a scan."""
        found = self._query("SELECT row FROM entries WHERE content = ? LIMIT 1", (content,))
        return int(found[0][0]) if found else None

    def directory_of(self, content: int) -> int | None:
        """Return the directory of the file at that offset of the data file, if files are there in the order of rows."""
        first, stop = 0, self.last_row() + 1
        while first < stop:
            middle = (first + stop) // 2
            found = self._query(_FROM_ROW, (middle,))
            if found and found[0][2] == content:
                return int(found[0][1])
            if not found or found[0][2] > content:
                stop = middle
            else:
                first = found[0][0] + 1
        return None

    def above(self, row: int) -> tuple[int, bytes]:
        """Return the directory that *row* is in, and its name there; the root is in itself."""
        found = self.row(row)
        return max(found.parent, ROOT_ROW), found.name

    def files_in(self, directory: int, limit: int) -> list[tuple[int, int]]:
        """Return (offset in the data file, size) of at most *limit* files with bytes in *directory*."""
        return [(content, size_of(attributes)) for content, attributes in self._query(_FILES_IN, (directory, limit))]

    def alike(self, above: int, name: bytes, limit: int) -> list[int]:
        """Return the rows that are called *name* in the directories in *above*, *limit* at most."""
        return [row for (row,) in self._query(_ALIKE, (name, above, limit))]

    def files(self) -> Iterator[tuple[int, bytes]]:
        """Yield row and attributes of each file that has bytes, in the order of the archive."""
        return self._batches(_FILES)

    def layout(self) -> DataLayout:
        """Return what the layer's data file holds, and where the index came from."""
        source, tar_size, expanded_size, expanded_sha256 = (self._query(_META, (key,))[0][0] for key in _LAYOUT)
        return DataLayout(source, tar_size, expanded_size, expanded_sha256)

    def blob(self) -> str | None:
        """Return the digest of the blob that a plain layer's chunks are ranges of; None if it has none."""
        found = self._query(_META, ("blob",))
        return found[0][0] if found else None

    def chunks_between(self, start: int, stop: int) -> list[StoredChunk]:
        """Return the chunks that have bytes of `[start, stop)` of the data file, in order."""
        found = map(_chunk, self._query(_CHUNKS_BETWEEN, (start, stop)))
        return [chunk for chunk in found if chunk.stop > start]

    def chunks_by_place(self) -> Iterator[StoredChunk]:
        """Yield all chunks in the order of the blob."""
        return map(_chunk, self._batches(_CHUNKS_BY_PLACE))

    def bytes_of_chunks(self) -> int:
        """Return how many bytes all chunks have together."""
        return int(self._query("SELECT total(size) FROM chunks", ())[0][0])

    def sizes_of_chunks(self) -> Iterator[tuple[int, int]]:
        """Yield number and size of each chunk."""
        return self._batches("SELECT number, size FROM chunks")

    def restart(self, blob_offset: int) -> tuple[int, bytes] | None:
        """Return the bits and the compressed window to begin inflating with at *blob_offset* of the blob."""
        found = self._query("SELECT bits, window FROM restarts WHERE blob_offset = ?", (blob_offset,))
        return found[0] if found else None

    def restarts(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield blob offset, bits and compressed window of every place to begin inflating at."""
        return self._batches("SELECT blob_offset, bits, window FROM restarts")

    def headers(self, start: int) -> tuple[int, bytes] | None:
        """Return the offset and the fingerprint of the tar headers of the file at *start* of the data file."""
        found = self._query("SELECT header, fingerprint FROM headers WHERE start = ?", (start,))
        return found[0] if found else None

    def sparse_map(self, start: int) -> SparseMap | None:
        """Return where the tar stream has the bytes of the file at *start* of the expanded files; None if not known."""
        found = self._query(_HAS_SPARSE) and self._query(_SPARSE, (start,))
        return SparseMap.unpacked(*found[0]) if found else None

    def last_row(self) -> int:
        """Return the highest number that a row has."""
        return int(self._query("SELECT max(row) FROM entries", ())[0][0])

    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._query("SELECT count(*) FROM entries", ())[0][0])

    def _one(self, sql: str, values: tuple[int | bytes, ...]) -> Row | None:
        rows = self._query(sql, values)
        if not rows:
            return None
        found = rows[0]
        return self._complete(rows)[0] if found[3] != found[0] else Row._make(found)

    def _complete(self, rows: Sequence[tuple[int, int, bytes, int, int, bytes, int | None, bytes, bytes]]) -> list[Row]:
        """Return *rows* with the hard links' missing columns filled in from their inodes."""
        complete = []
        for found in rows:
            if found[3] != found[0]:
                complete.append(Row._make(found[:5] + self.row(found[3])[5:]))
            else:
                complete.append(Row._make(found))
        return complete


def _chunk(columns: tuple[int, int, int, int, int, int, str]) -> StoredChunk:
    return StoredChunk(*columns[:6], digest=Digest.parse(columns[6]))
