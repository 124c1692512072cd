"""Checks a layer of the cache for damage: its index, its data file, the chunks that are here.

    index        its checksum
    data file    its diff id, which is its name; of a lazy layer the digest of each chunk. It may have been evicted:
                 then the digest of each chunk that was fetched again
    contents     the index names no byte that is outside the data file

Used by layer_store.py after a crash, and by verify.py. Thread rule: one thread.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from io import FileIO
from pathlib import Path

from regfs.errors import InvalidName, RegfsError, Unsupported
from regfs.model.attributes import size_of
from regfs.model.digest import Hasher
from regfs.store.eviction.inventory import CHUNKS, DATA, PARTS
from regfs.store.files.boot_id import boot_id
from regfs.store.files.cached_files import open_file
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import load_sums, sha256_of
from regfs.store.layers.chunk_map import ChunkMap
from regfs.store.layers.content import BLOCK
from regfs.store.layers.data_writer import TAR, DataLayout
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_names import diff_id_of
from regfs.store.layers.span_table import SpanTable

_READ = 1 << 20


def wrong_layer(root: Path, index_path: Path) -> str | None:
    """Return what is wrong with a layer, None for nothing. Reads all of it: a second for each gigabyte.

    Raises FileNotFoundError where there is no index, OSError.
    """
    index_path.stat()
    try:
        if (reason := wrong_sum(root, index_path, load_sums(index_path.with_suffix(SUMS)))) is not None:
            return reason
    except FileNotFoundError:
        return "without its sums"
    except ValueError as error:
        return str(error)
    try:
        with closing(LayerIndex.open(index_path)) as index:
            return _wrong_bytes(index_path.with_suffix(DATA), index) or _wrong_contents(index)
    except FileNotFoundError:
        return "incomplete: the map of its chunks is missing"
    except RegfsError as error:
        return str(error)


def wrong_sum(root: Path, path: Path, sums: dict[str, str]) -> str | None:
    """Return what is wrong with the file at *path* by the *sums* beside it, None for nothing. Raises OSError."""
    name = path.relative_to(root).as_posix()
    return None if sha256_of(path) == sums.get(name) else f"damaged: {name} has another sum than it was written with"


def _wrong_bytes(path: Path, index: LayerIndex) -> str | None:
    """Return what is wrong with a data file, and with the parts of it that were fetched again; None if evicted."""
    layout = index.layout()
    if layout.source != TAR:
        return _wrong_chunks(path, ChunkMap(path.with_suffix(CHUNKS), boot=boot_id()), index) if path.exists() else None
    if path.exists() and (reason := _wrong_data(path, layout)) is not None:
        return reason
    parts = path.with_suffix(PARTS)
    return _wrong_chunks(parts, _map_of_parts(parts, index), index) if parts.exists() else None


def _wrong_data(path: Path, layout: DataLayout) -> str | None:
    """Return what is wrong with a data file: its tar stream, what was expanded, or its size."""
    try:
        diff_id = diff_id_of(path.stem)
    except (InvalidName, Unsupported) as error:
        return f"its name is not a digest: {error}"
    with open(open_file(path), "rb", buffering=0) as file:
        size = file.seek(0, 2)
        if size != layout.size:
            return f"damaged: {path.name} has {size} bytes, not {layout.size}"
        found = _digest_of(file, 0, layout.tar_size, diff_id.hasher())
        if found != diff_id.encoded:
            return f"damaged: the {diff_id.algorithm} of the tar stream in {path.name} is {found}"
        found = _digest_of(file, layout.expanded_offset, layout.expanded_size, hashlib.sha256())
        if layout.expanded_size and found != layout.expanded_sha256:
            return f"damaged: the sha256 of the sparse files in {path.name} is {found}"
    return None


def _wrong_chunks(path: Path, chunks: ChunkMap, index: LayerIndex) -> str | None:
    """Return what is wrong with a data file that is fetched chunk by chunk: its size, or a chunk that is here."""
    with open(open_file(path), "rb", buffering=0) as file:
        size = file.seek(0, 2)
        if path.suffix != PARTS and size != index.layout().size:
            return f"damaged: {path.name} has {size} bytes, not {index.layout().size}"
        for chunk in index.chunks_by_place():
            if chunk.number >= chunks.count:
                return f"damaged: the map of {path.name} has no place for chunk {chunk.number}"
            # The digests of SOCI are of compressed bytes, which the cache does not keep.
            if chunks.is_here(chunk.number) and index.layout().source != "SOCI":
                file.seek(chunk.start)
                if not chunk.digest.matches(read_exactly(file, chunk.size)):
                    return f"damaged: the chunk at byte {chunk.start} of {path.name} is not what its digest says"
    return None


def _map_of_parts(path: Path, index: LayerIndex) -> ChunkMap:
    return ChunkMap(path, boot=boot_id(), at=index.layout().size, table=SpanTable.of(index).id)


def _digest_of(file: FileIO, offset: int, size: int, hasher: Hasher) -> str:
    """Return the hexadecimal digest of *size* bytes from *offset*."""
    file.seek(offset)
    while size and (content := file.read(min(_READ, size))):
        hasher.update(content)
        size -= len(content)
    return hasher.hexdigest()


def _wrong_contents(index: LayerIndex) -> str | None:
    """Return what is wrong with the contents of files in the index."""
    end = index.layout().size
    for offset, attributes in index.contents():
        size = size_of(attributes)
        if offset < 0 or offset % BLOCK or offset + size > end:
            return f"wrong: a file of {size} bytes at byte {offset} of a data file of {end}"
    return None


def read_exactly(file: FileIO, size: int) -> bytes:
    """Return the next *size* bytes of *file*, fewer where it ends."""
    content = b""
    while len(content) < size and (more := file.read(size - len(content))):
        content += more
    return content
