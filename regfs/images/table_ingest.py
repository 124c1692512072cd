"""The names of a layer by its table of contents, into the store: its bytes are fetched when they are read.

Used by layer_cache.py. Thread rule: any thread; blocks on the network for the table alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from regfs.layers.archive_rows import ArchiveRows
from regfs.layers.formats.format import Chunk, Format, found_nowhere
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.store.layer_store import LayerStore
from regfs.store.layer_writer import PartialLayerWriter


@dataclass(frozen=True, slots=True)
class RangedSource:
    """A blob that is read by ranges: a ByteSource."""

    size: int
    part: Callable[[int, int], bytes]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the *size* bytes at *offset*. Blocks on the network."""
        return self.part(offset, offset + size) if size else b""


def ingest_table(
    descriptor: Descriptor, *, layer: Digest, table_format: Format, part: Callable[[int, int], bytes], store: LayerStore
) -> str:
    """Put the names of a layer into *store*, as those of *layer*; return what is wrong with single files, "" mostly.

    *part* returns a range of its blob. Raises DigestMismatch and BadLayer where the table is wrong; Unsupported,
    TooLarge and RangesRefused where the layer has to be read whole; CacheFailure, and what *part* raises.
    """
    table = table_format.table(descriptor, RangedSource(descriptor.size, part), found_nowhere)
    with store.begin_partial_layer(table_format.name) as writer:
        rows = ArchiveRows(writer.rows)
        for entry, chunks in table.entries():
            rows.add(entry, _placed(writer, entry.size, chunks, nothing=descriptor.digest) if entry.size else None)
        rows.finish()
        store.publish(writer, layer)
    return table.remark


def _placed(writer: PartialLayerWriter, size: int, chunks: tuple[Chunk, ...], *, nothing: Digest) -> int:
    """Give a file its place in the data file and say where its bytes come from; return its row's content."""
    start = writer.begin_file(size)
    for chunk in chunks:
        if chunk.digest is not None:
            writer.add_chunk(
                start + chunk.offset,
                chunk.size,
                at=chunk.at,
                stored=chunk.stored,
                inner=chunk.inner,
                digest=chunk.digest,
            )
    if not chunks:  # the table is wrong about this file: a chunk that nothing can fetch, lest it be read as zeros
        writer.add_chunk(start, size, at=0, stored=0, inner=0, digest=nothing)
    return start
