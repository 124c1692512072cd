"""Writes the index of one layer; layer_index.py has the format.

Used by layer_writer.py. One thread after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from regfs.model.attributes import with_nlink
from regfs.model.digest import Digest
from regfs.model.layer_entry import Row
from regfs.store.files.failures import table_failure
from regfs.store.layers.data_writer import DataLayout
from regfs.store.layers.layer_index import APPLICATION_ID, VERSION
from regfs.store.layers.sparse_map import SparseMap

_SCHEMA = """
CREATE TABLE entries (row INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, inode INTEGER NOT NULL,
    flags INTEGER NOT NULL, attributes BLOB, content INTEGER, target BLOB, xattrs BLOB);
CREATE TABLE chunks (start INTEGER PRIMARY KEY, number INTEGER NOT NULL, size INTEGER NOT NULL,
    blob_offset INTEGER NOT NULL, blob_size INTEGER NOT NULL, inner_offset INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE restarts (blob_offset INTEGER PRIMARY KEY, bits INTEGER NOT NULL, window BLOB NOT NULL);
CREATE TABLE headers (start INTEGER PRIMARY KEY, header INTEGER NOT NULL, fingerprint BLOB NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""
# Of few layers, so that others have no page for it.
_SPARSE = """
CREATE TABLE IF NOT EXISTS sparse (start INTEGER PRIMARY KEY, size INTEGER NOT NULL, at INTEGER NOT NULL,
    extents BLOB NOT NULL)
"""
# sqlite3 looks up adapters for each bytes and None that it binds, which takes three times as long as the rest. So blobs
# are bytearrays, and an impossible value stands for NULL.
_INSERT = """
INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, nullif(?, x''), nullif(?, 1), nullif(?, x''), nullif(?, x''))
"""
_NEW = "(?, ?, ?, ?, 0, ?, nullif(?, 1), nullif(?, x''), NULL)"
_NEW_VALUES = 7
_NO_BLOB, _NO_CONTENT = bytearray(), 1
_CHUNK = "(?, ?, ?, ?, ?, ?, ?)"
_CHUNK_VALUES = 7
# A statement that inserts many rows takes two thirds of the time of as many statements. Before 3.32, SQLite allowed 999
# values in one.
_ROWS = 140
_INTO_ENTRIES = "INSERT INTO entries VALUES "
_INSERT_NEW, _INSERT_MANY_NEW = (_INTO_ENTRIES + ", ".join([_NEW] * count) for count in (1, _ROWS))
_INTO_CHUNKS = "INSERT INTO chunks (number, start, size, blob_offset, blob_size, inner_offset, digest) VALUES "
_INSERT_CHUNK, _INSERT_CHUNKS = (_INTO_CHUNKS + ", ".join([_CHUNK] * count) for count in (1, _ROWS))
_BATCH = 1000
_NEW_BATCH, _CHUNKS_BATCH = 10 * _ROWS * _NEW_VALUES, 10 * _ROWS * _CHUNK_VALUES

ChunkColumns = tuple[int, int, int, int, int, int, str]
"""The fields of a StoredChunk (chunks.py), the digest as text."""


class LayerIndexWriter:
    """Writes an index into a file that is read once it is complete. Methods may raise CacheFailure. One thread."""

    def __init__(self, path: Path) -> None:
        """Begin an empty index at *path*, which must not exist."""
        self._path = path
        # The values of many rows, one after the other.
        self._new: list[int | bytearray] = []
        self._rows: list[tuple[int | bytearray, ...]] = []
        self._chunks: list[int | str | None] = []
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # The file is renamed into place when it is complete, so it needs neither journal nor flushes.
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -8000",
                           f"application_id = {APPLICATION_ID}", f"user_version = {VERSION}"):  # fmt: skip
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute("BEGIN")
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.create_function("with_nlink", 2, with_nlink, deterministic=True)
        except sqlite3.Error as error:
            raise table_failure(path, error) from error

    def add(self, row: Row) -> None:
        """Add *row*, or replace the row of that number; a hard link's inode columns stay NULL."""
        self._rows.append(_stored(row))
        if len(self._rows) >= _BATCH:
            self._flush()

    def add_file(self, row: int, parent: int, name: bytes, attributes: bytes, content: int) -> None:
        """Add a row with a new number, in a third of the time of add()."""
        self._new += (row, parent, bytearray(name), row, bytearray(attributes), content, _NO_BLOB)
        if len(self._new) >= _NEW_BATCH:
            self._flush()

    def add_new(
        self, first: int, parents: Sequence[int], names: Sequence[bytes], attributes: Sequence[bytes],
        contents: Sequence[int | None], targets: Sequence[bytes],
    ) -> None:  # fmt: skip
        """Add rows with new numbers from *first* on. See RowSink."""
        values: list[int | bytearray] = [0] * (_NEW_VALUES * len(parents))
        values[0::_NEW_VALUES] = values[3::_NEW_VALUES] = range(first, first + len(parents))
        values[1::_NEW_VALUES] = parents
        values[2::_NEW_VALUES] = map(bytearray, names)
        values[4::_NEW_VALUES] = map(bytearray, attributes)
        values[5::_NEW_VALUES] = [_NO_CONTENT if content is None else content for content in contents]
        values[6::_NEW_VALUES] = [bytearray(target) if target else _NO_BLOB for target in targets]
        self._new += values
        if len(self._new) >= _NEW_BATCH:
            self._flush()

    def add_chunk(self, chunk: ChunkColumns) -> None:
        """Add one chunk of the data file."""
        self._chunks += chunk
        if len(self._chunks) >= _CHUNKS_BATCH:
            self._flush()

    def add_chunks(
        self, number: int, starts: Sequence[int], sizes: Sequence[int], ats: Sequence[int], stored: Sequence[int],
        digests: Sequence[str | None],
    ) -> None:  # fmt: skip
        """Add chunks with numbers from *number* on, each alone in its member of the blob."""
        values: list[int | str | None] = [0] * (_CHUNK_VALUES * len(starts))
        columns = (range(number, number + len(starts)), starts, sizes, ats, stored)
        for place, column in enumerate(columns):
            values[place::_CHUNK_VALUES] = column
        values[6::_CHUNK_VALUES] = digests
        self._chunks += values
        if len(self._chunks) >= _CHUNKS_BATCH:
            self._flush()

    def add_restart(self, blob_offset: int, bits: int, window: bytes) -> None:
        """Add the state to begin inflating with at *blob_offset*; *window* is compressed."""
        self._change("INSERT INTO restarts VALUES (?, ?, ?)", [(blob_offset, bits, window)])

    def add_sparse_file(self, start: int, found: SparseMap) -> None:
        """Add where the tar stream has the bytes of the file at *start* of the expanded files."""
        self._change(_SPARSE, [()])
        self._change("INSERT INTO sparse VALUES (?, ?, ?, ?)", [(start, *found.packed())])

    def add_headers(self, found: Iterable[tuple[int, int, bytes]]) -> None:
        """Add, for files: their offset, the offset of their headers, and the fingerprint of the headers."""
        self._change("INSERT INTO headers VALUES (?, ?, ?)", found)

    def set_blob(self, blob: Digest) -> None:
        """Note the blob whose ranges the chunks are; for a plain layer, which any blob of its archive can bring."""
        self._change("INSERT INTO meta VALUES ('blob', ?)", [(str(blob),)])

    def remove(self, rows: Iterable[int]) -> None:
        """Remove the rows of these numbers."""
        self._change("DELETE FROM entries WHERE row = ?", ((row,) for row in rows))

    def rename(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        """Rename rows: triples of row, parent and name."""
        self._change(
            "UPDATE entries SET parent = ?, name = ? WHERE row = ?", ((parent, name, row) for row, parent, name in rows)
        )

    def add_flags(self, rows: Iterable[int], flags: int) -> None:
        """Set further flags of these rows."""
        self._change("UPDATE entries SET flags = flags | ? WHERE row = ?", ((int(flags), row) for row in rows))

    def set_nlinks(self, nlinks: Iterable[tuple[int, int]]) -> None:
        """Set link counts: pairs of row and count."""
        self._change(
            "UPDATE entries SET attributes = with_nlink(attributes, ?) WHERE row = ?",
            ((nlink, row) for row, nlink in nlinks),
        )

    def place_expanded(self, offset: int) -> None:
        """Move the expanded files to *offset* of the data file: until now their contents are -1 - offset."""
        self._change("UPDATE entries SET content = ? - 1 - content WHERE content < 0", [(offset,)])

    def finish(self, layout: DataLayout) -> None:
        """Complete and close the file; *layout* describes its data file. It is not flushed to the disk yet."""
        self._flush()
        try:
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", zip(DataLayout._fields, layout, strict=True))
            self._connection.execute("CREATE UNIQUE INDEX entries_by_name ON entries (parent, name)")
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise table_failure(self._path, error) from error
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Close the file as it is, to be removed by its owner."""
        self._connection.close()

    def _change(self, sql: str, values: Iterable[tuple[int | bytes | str, ...]]) -> None:
        self._flush()
        try:
            self._connection.executemany(sql, values)
        except sqlite3.Error as error:
            raise table_failure(self._path, error) from error

    def _flush(self) -> None:
        new, self._new = self._new, []
        rows, self._rows = self._rows, []
        chunks, self._chunks = self._chunks, []
        try:
            self._insert(_INSERT_NEW, _INSERT_MANY_NEW, new, width=_NEW_VALUES)
            self._connection.executemany(_INSERT, rows)
            self._insert(_INSERT_CHUNK, _INSERT_CHUNKS, chunks, width=_CHUNK_VALUES)
        except sqlite3.Error as error:
            raise table_failure(self._path, error) from error

    def _insert(self, one: str, many: str, values: Sequence[int | str | bytearray | None], *, width: int) -> None:
        """Insert rows of *width* values, given one after the other: by the statement *many*, the last ones by *one*."""
        step = _ROWS * width
        last = len(values) - len(values) % step
        for start in range(0, last, step):
            self._connection.execute(many, values[start : start + step])
        self._connection.executemany(one, (values[at : at + width] for at in range(last, len(values), width)))


def _stored(row: Row) -> tuple[int | bytearray, ...]:
    """Return the values to bind for *row*; for a hard link, only its own columns."""
    number, parent, name, inode, flags, attributes, content, target, xattrs = row
    if inode != number:
        return number, parent, bytearray(name), inode, int(flags), _NO_BLOB, _NO_CONTENT, _NO_BLOB, _NO_BLOB
    return (
        number, parent, bytearray(name), inode, int(flags), bytearray(attributes),
        _NO_CONTENT if content is None else content,
        bytearray(target) if target else _NO_BLOB, bytearray(xattrs) if xattrs else _NO_BLOB,
    )  # fmt: skip
