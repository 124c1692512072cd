"""What a table of contents tells of a layer, in the words of tests; and the same of the archive, to compare with."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from regfs.layers.formats.format import Chunk, FindTable, Format, found_nowhere
from regfs.layers.formats.recognise import recognise
from regfs.layers.formats.toc_files import TocFiles
from regfs.layers.rows.archive_rows import ArchiveRows
from regfs.layers.rows.table_rows import TableRows
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import TarEntry, TarReader
from regfs.model.attributes import with_nlink
from regfs.model.layer_entry import Row
from tests.support.images import BuiltLayer
from tests.support.lazy_layers import MemorySource, descriptor_of

Rows = dict[int, Row]


class MemoryRows:
    """Keeps the rows of a layer, without where their content is."""

    def __init__(self) -> None:
        self.rows: Rows = {}

    def add(self, row: Row) -> None:
        self.rows[row.row] = row._replace(content=None)

    def add_file(self, row: int, parent: int, name: bytes, attributes: bytes, content: int) -> None:
        assert row not in self.rows
        self.add(Row(row, parent, name, row, 0, attributes, content, None, None))

    def add_new(
        self,
        first: int,
        parents: Sequence[int],
        names: Sequence[bytes],
        attributes: Sequence[bytes],
        contents: Sequence[int | None],
        targets: Sequence[bytes],
    ) -> None:
        for row, (parent, name, packed, content, target) in enumerate(
            zip(parents, names, attributes, contents, targets, strict=True), first
        ):
            assert row not in self.rows
            self.add(Row(row, parent, name, row, 0, packed, content, target or None, None))

    def remove(self, rows: Iterable[int]) -> None:
        for row in rows:
            del self.rows[row]

    def rename(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        for row, parent, name in rows:
            self.rows[row] = self.rows[row]._replace(parent=parent, name=name)

    def add_flags(self, rows: Iterable[int], flags: int) -> None:
        for row in rows:
            self.rows[row] = self.rows[row]._replace(flags=self.rows[row].flags | flags)

    def set_nlinks(self, nlinks: Iterable[tuple[int, int]]) -> None:
        for row, nlink in nlinks:
            self.rows[row] = self.rows[row]._replace(attributes=with_nlink(self.rows[row].attributes, nlink))


class FileChunk(NamedTuple):
    """Where the bytes of a file of one chunk are."""

    size: int
    at: int
    stored: int
    digest: str | None


class FileChunks:
    """Keeps the chunks of plain files."""

    def __init__(self) -> None:
        self.chunks: list[FileChunk] = []

    def places(self, sizes: Sequence[int]) -> list[int]:
        return [0] * (len(sizes) + 1)

    def add_chunks(
        self,
        starts: Sequence[int],
        sizes: Sequence[int],
        ats: Sequence[int],
        stored: Sequence[int],
        digests: Sequence[str | None],
        *,
        end: int,
    ) -> None:
        self.chunks += map(FileChunk, sizes, ats, stored, digests)


def rows_of(entries: Iterable[TarEntry], kind: type[ArchiveRows] = TableRows) -> Rows:
    rows = MemoryRows()
    archive = kind(rows)
    for entry in entries:
        archive.add(entry, None)
    archive.finish()
    return rows.rows


def rows_of_tar(tar: bytes) -> Rows:
    """Return the rows that the ingest of a whole archive makes."""
    return rows_of(TarReader(ByteFeed(iter([tar] if tar else []))), ArchiveRows)


@dataclass
class Listed:
    """A layer's table, read through a source that counts."""

    built: BuiltLayer
    find_table: FindTable = found_nowhere
    source: MemorySource = field(init=False)
    format: Format = field(init=False)

    def __post_init__(self) -> None:
        descriptor = descriptor_of(self.built)
        found = recognise(descriptor)
        assert found is not None, descriptor
        self.format, self.source = found, MemorySource(self.built.blob)
        self.table = found.table(descriptor, self.source, self.find_table)
        self.table_reads = list(self.source.reads)
        self.entries = list(self.table.entries())

    def rows(self) -> Rows:
        return rows_of(entry for entry, _ in self.entries)

    def quick_rows(self) -> tuple[Rows, list[FileChunk]]:
        """Return the rows as an ingest makes them, plain files in one step; and the chunks of these files."""
        return quick_rows(self.built, self.find_table)

    def paths(self) -> list[bytes]:
        return [entry.path for entry, _ in self.entries]

    def chunks(self, path: bytes) -> tuple[Chunk, ...]:
        return next(chunks for entry, chunks in self.entries if entry.path == path)

    def read(self, chunk: Chunk) -> bytes | None:
        """Return the bytes of *chunk*, None where they are wrong."""
        if chunk.digest is None:
            return bytes(chunk.size)
        stored = self.source.read_at(chunk.at, chunk.stored)
        return self.format.read([chunk], stored).get(chunk)

    def content(self, path: bytes) -> bytes | None:
        """Return the content of a file, None where it cannot be read."""
        entry, chunks = next(found for found in self.entries if found[0].path == path)
        parts = [self.read(chunk) for chunk in chunks]
        whole = b"".join(part for part in parts if part is not None)
        return whole if len(whole) == entry.size else None

    def contents(self) -> Iterator[tuple[bytes, bytes | None]]:
        for entry, _ in self.entries:
            if entry.kind == stat.S_IFREG:
                yield entry.path, self.content(entry.path)


def quick_rows(built: BuiltLayer, find_table: FindTable = found_nowhere) -> tuple[Rows, list[FileChunk]]:
    """See Listed.quick_rows(). Raises what an ingest would raise."""
    descriptor = descriptor_of(built)
    found = recognise(descriptor)
    assert found is not None, descriptor
    rows, chunks = MemoryRows(), FileChunks()
    archive = TableRows(rows)
    table = found.table(descriptor, MemorySource(built.blob), find_table)
    for entry, _ in table.entries(TocFiles(archive, chunks, hidden=table.hidden).take):
        archive.add(entry, None)
    archive.finish()
    return rows.rows, chunks.chunks
