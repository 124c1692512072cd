"""Gives the files of a layer that was written their names, in an order in which a crash leaves nothing half visible.

Used by layer_store.py, whose publish() it is. Thread rule: any thread; several daemons may publish at once.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

from regfs.model.digest import Digest
from regfs.store.eviction.inventory import OLD_PACK
from regfs.store.files.cached_files import put
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import format_sums, sha256_of
from regfs.store.files.failures import failures_of
from regfs.store.layers.layer_files import LayerFiles
from regfs.store.layers.layer_writer import LayerWriter, PartialLayerWriter
from regfs.store.locks.file_locks import changing


class Mark(Protocol):
    """Marks a layer as not yet flushed: UnsettledLayers.mark()."""

    def __call__(self, layer: Digest, *, beside: Path) -> None: ...


def put_in_place(writer: LayerWriter | PartialLayerWriter, files: LayerFiles, diff_id: Digest, *, mark: Mark) -> None:
    """Make what *writer* has finished visible. Raises CacheFailure; it is not visible then."""
    # Before the marker, as all bytes of the layer: a settle() that sees the marker flushes them.
    sums = _write_sums(writer, files, diff_id)
    mark(diff_id, beside=writer.index.with_suffix(".marker"))
    with changing(files.root):
        # The map before the data file: where eviction has left the index, the layer is visible already.
        if isinstance(writer, PartialLayerWriter):
            _rename(writer.map_file, files.map_path(diff_id))
        if isinstance(writer, PartialLayerWriter) or not writer.names_only:
            _rename(writer.data_file, files.data_path(diff_id))
        with suppress(OSError):  # what was fetched again while there was no data file
            files.parts_path(diff_id).unlink(missing_ok=True)
        _rename(sums, files.sums_path(diff_id))
        # The index comes last: it makes the layer visible.
        _rename(writer.index, files.index_path(diff_id))
        with suppress(OSError):  # files of the layer from an older release
            files.index_path(diff_id).with_suffix(OLD_PACK).unlink(missing_ok=True)


def _write_sums(writer: LayerWriter | PartialLayerWriter, files: LayerFiles, diff_id: Digest) -> Path:
    path = writer.index.with_suffix(SUMS)
    with failures_of(path):
        name = files.index_path(diff_id).relative_to(files.root).as_posix()
        path.write_bytes(format_sums({name: sha256_of(writer.index)}))
    return path


def _rename(source: Path, destination: Path) -> None:
    with failures_of(destination):
        try:
            put(source, destination)
        except FileNotFoundError:
            destination.parent.mkdir(parents=True, exist_ok=True)
            put(source, destination)
