"""Indexes a layer from its table of contents; the layer's bytes are fetched when they are read.

Used by partial_layers.py. Thread rule: any thread; blocks on the network for the table alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from regfs.errors import BadLayer, TooLarge, Unsupported
from regfs.layers.formats.format import Chunk, FindTable, Format, found_nowhere
from regfs.layers.formats.soci import Soci, fingerprint, read_ztoc
from regfs.layers.formats.toc_files import TocFiles
from regfs.layers.rows.table_rows import TableRows
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.layer_writer import PartialLayerWriter


@dataclass(frozen=True, slots=True)
class RangedSource:
    """A blob that is read by ranges, as a ByteSource."""

    size: int
    part: Callable[[int, int], bytes]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the *size* bytes at *offset*. Blocks on the network."""
        return self.part(offset, offset + size) if size else b""


def ingest_table(
    descriptor: Descriptor,
    *,
    layer: Digest,
    table_format: Format,
    part: Callable[[int, int], bytes],
    store: LayerStore,
    find_table: FindTable = found_nowhere,
) -> str:
    """Write the index of *layer* into *store* from its table; return a remark about single files that are wrong, or "".

    *part* returns a range of its blob, *find_table* a table that is not in it. Raises DigestMismatch and BadLayer if
    the table is wrong; Unsupported, TooLarge and RangesRefused if the layer must be read whole; CacheFailure, and the
    errors of *part*.
    """
    table = table_format.table(descriptor, RangedSource(descriptor.size, part), find_table)
    with store.begin_partial_layer(table_format.name) as writer:
        rows = TableRows(writer.rows)
        try:
            files = TocFiles(rows, writer, hidden=table.hidden)
            for entry, chunks in table.entries(files.take):
                rows.add(entry, _placed(writer, entry.size, chunks, nothing=descriptor.digest) if entry.size else None)
        except (BadLayer, TooLarge, Unsupported):
            table.verify()  # DigestMismatch: wrong bytes of a table say nothing about the layer
            raise
        rows.finish()
        store.publish(writer, layer)
    return table.remark


def ingest_ztoc(descriptor: Descriptor, soci: Soci, *, layer: Digest, store: LayerStore) -> str:
    """Write the index of a gzip layer into *store* from its zTOC, as ingest_table() does.

    The data file is the layer's tar stream, and a chunk of it a span. A zTOC that is wrong is Unsupported.
    """
    ztoc = read_ztoc(descriptor, soci.load())
    wrong = 0
    with store.begin_partial_layer(soci.name) as writer:
        writer.begin_archive(ztoc.archive_size)
        for span in ztoc.spans:
            writer.add_chunk(span.start, span.size, at=span.at, stored=span.stored, inner=0, digest=str(span.digest))
            writer.rows.add_restart(span.at, span.bits, zlib.compress(span.window, 1))
        rows = TableRows(writer.rows)
        headers: list[tuple[int, int, bytes]] = []
        try:
            for entry, offsets in ztoc.entries():
                content = offsets.start if offsets is not None and entry.size else None
                if entry.size and offsets is not None:
                    headers.append((offsets.start, offsets.header, fingerprint(entry)))
                elif entry.size:
                    wrong += 1
                    content = _placed(writer, entry.size, (), nothing=descriptor.digest)
                rows.add(entry, content)
        except BadLayer as error:
            raise Unsupported(f"its zTOC is unusable: {error}") from None
        rows.finish()
        writer.rows.add_headers(headers)
        store.publish(writer, layer)
    return f"the zTOC has wrong offsets of {wrong} files, which cannot be read" if wrong else ""


def _placed(writer: PartialLayerWriter, size: int, chunks: tuple[Chunk, ...], *, nothing: Digest) -> int:
    """Give a file its range of the data file, record where its bytes come from, and return the range's offset."""
    start = writer.begin_file(size)
    for chunk in chunks:
        if chunk.digest is not None:
            writer.add_chunk(
                start + chunk.offset,
                chunk.size,
                at=chunk.at,
                stored=chunk.stored,
                inner=chunk.inner,
                digest=str(chunk.digest),
            )
    if not chunks:  # The table is wrong about this file: its reads must fail, not return zeros.
        writer.add_chunk(start, size, at=0, stored=0, inner=0, digest=str(nothing))
    return start
