"""The layers that were ingested: their indexes and data files.

    layers/<diff id>.index  layers/<diff id>.tar       one layer; where the index is, the layer is whole
    layers/<digest of the blob>.index .tar .chunks     one whose names are here and whose bytes are fetched (chunks.py)
    layers/<diff id>.sums                              what its index was when it was written (checksums.py)
    objects/<boot id>/<diff id>/<offset>-<size>        a big file for the kernel to read by itself (promotion.py)
    young/<token>                                      what may not be on the disk yet (unsettled_layers.py)
    uses/<token>                                       what a process uses (uses.py)
    ingests/<token>…                                   an ingest under way (ingest_directories.py)
    locks/<name>                                       which ingest or merge a process is at (work_locks.py)

The data file is the layer's tar stream, so that its sha256 is its name; data_writer.py has its layout. Where an image
has the same file in several layers, it is there several times.

A layer is visible first and durable after: unsettled_layers.py says how that survives a crash. What is opened is closed
again when the process has too much open (open_tables.py), and opened when it is asked.

Used by images/. Thread rule: any thread; several daemons may share the directory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import finalize

from regfs.errors import CacheDamaged, CacheFailure, CacheFull
from regfs.model.digest import Digest
from regfs.store.eviction.budget import Budget
from regfs.store.eviction.inventory import INGESTS, OLD_INGESTS, OLD_PACK
from regfs.store.eviction.uses import Uses, sweep_uses
from regfs.store.files.boot import boot_id
from regfs.store.files.cached_files import put, take_away
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.checksums import format_sums, sha256_of
from regfs.store.files.directories import clear_places
from regfs.store.files.failures import failures_of, is_exhausted
from regfs.store.layers.chunks import PartialData
from regfs.store.layers.content import (
    Content,
    Nothing,
    OpenBigContent,
    OpenContent,
    OpenPartialContent,
    Pieces,
    Span,
    empty,
)
from regfs.store.layers.data_files import DataFile, DataFiles
from regfs.store.layers.ingest_directories import ingest_directory, sweep_ingests
from regfs.store.layers.layer_files import LayerFiles
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_names import name_of
from regfs.store.layers.layer_writer import LayerWriter, PartialLayerWriter
from regfs.store.layers.open_retry import open_with_retry
from regfs.store.layers.promotion import BIG, Promotion
from regfs.store.layers.unkept_chunks import UnkeptChunks
from regfs.store.layers.unsettled_layers import UnsettledLayers
from regfs.store.layers.wrong_layers import wrong_layer
from regfs.store.locks.file_locks import changing, touch
from regfs.store.tables.open_tables import OpenTables
from regfs.store.tables.table import MakeAgain

log = logging.getLogger(__name__)


class LayerStore(LayerFiles):
    """The layers below *root*. *boot* is this boot's id; *limit* the most that the cache may hold (budget.py).

    *tables* bounds what the process has open: one for all stores and trees of it.
    """

    def __init__(
        self,
        root: Path,
        *,
        boot: str = "",
        limit: int | None = None,
        tables: OpenTables | None = None,
        note: Callable[[str], None] = log.warning,
    ) -> None:
        super().__init__(root, boot=boot or boot_id())
        self._note = note
        self.tables = tables or OpenTables()
        self.budget = Budget(root, limit=limit, let_go=self.tables.close_idle, note=note)
        self._young = UnsettledLayers(root / "young", boot=self.boot)
        self._ingests = root / INGESTS
        self.uses = Uses(root)
        self._unkept = UnkeptChunks(note)
        self._data_files = DataFiles(self.data_path, self.tables)
        self.promotion = Promotion(
            root / "objects", boot=self.boot, budget=self.budget, name_of=name_of, data_file=self._data_file
        )

    def index(self, diff_id: Digest, *, make_again: MakeAgain | None = None) -> LayerIndex:
        """Return the layer's index, opened when it is first asked; no file of the layer is evicted while it is there.

        *make_again* brings the layer back where it was deleted all the same (see Table). Raises NotFound,
        CacheFailure.
        """
        path = self.index_path(diff_id)
        index = LayerIndex(path, tables=self.tables, use=self.uses.announce(path), make_again=make_again)
        touch(path)
        # The data file may be evicted after its index is gone; an open one would keep its room on the disk taken.
        finalize(index, self._data_files.drop, diff_id).atexit = False
        return index

    def open_index(self, diff_id: Digest) -> LayerIndex:
        """Return the same, opened. Raises CacheDamaged too: drop the layer and ingest it again."""
        index = self.index(diff_id)
        index.open_now()
        return index

    def open_content(self, content: Content) -> OpenContent:
        """Return the opened *content*.

        Raises CacheDamaged where its file is gone, or has another size than it should have: such a layer is dropped.
        Raises CacheFailure where it cannot be opened now.
        """
        if isinstance(content, Nothing):
            return empty()
        is_big = content.size >= BIG
        if is_big and (fd := self.promotion.open(content)) is not None:
            return OpenContent(fd, content.size)
        file = self._data_file(content.layer)
        if content.offset + content.size > file.size:
            self.drop(content.layer)
            raise CacheDamaged(f"{self.data_path(content.layer)}: cut off after {file.size} bytes")
        if is_big:
            return OpenBigContent(file.fd, content, shared=file, reading=self.promotion)
        return OpenContent(file.fd, content.size, start=content.offset, shared=file)

    def partial_data(self, layer: Digest, let_go: Callable[[], object] = lambda: None) -> PartialData:
        """Return what has and takes the bytes of a layer that is fetched chunk by chunk.

        *let_go* is called when others need its descriptors; it drops what refers to it, but for open files.
        Raises CacheDamaged where it is gone or torn, CacheFailure.
        """
        path, reserve = self.map_path(layer), self.budget.reserve
        data = open_with_retry(
            path,
            lambda: PartialData(
                self.data_path(layer), path, boot=self.boot, reserve=reserve, unkept=self._unkept, let_go=let_go
            ),
            self.tables,
        )
        self.tables.add(data, descriptors=2)
        return data

    def open_partial(
        self, span: Span, ensure: Callable[[int, int], Pieces], *, is_here: Callable[[], bool] | None = None
    ) -> OpenContent:
        """Return the opened *span* of a layer that is fetched chunk by chunk, by *ensure*. Raises as open_content().

        A big one may be promoted as soon as *is_here* tells that all of it is in the data file; None: never.
        """
        read_through = None
        if is_here is not None and span.size >= BIG:
            if (fd := self.promotion.open(span)) is not None:
                return OpenContent(fd, span.size)
            read_through = partial(self.promotion.read_on, span, is_here)
        file = self._data_file(span.layer)
        if span.offset + span.size > file.size:
            self.drop(span.layer)
            raise CacheDamaged(f"{self.data_path(span.layer)}: cut off after {file.size} bytes")
        return OpenPartialContent(file.fd, span, shared=file, ensure=ensure, read_through=read_through)

    def _data_file(self, layer: Digest) -> DataFile:
        """Return the data file of *layer*, opened. Raises CacheDamaged where it is gone; CacheFailure."""
        return self._data_files.find(layer) or open_with_retry(
            self.data_path(layer), lambda: self._data_files.open(layer), self.tables
        )

    def with_room(self, write: Callable[[], None]) -> None:
        """Call *write*; where the cache is full or descriptors run out, once more after what is idle is given up.

        A big layer is written by a process of its own, to which the images that were visited last are in use.
        """
        try:
            write()
        except CacheFailure as failure:
            if not (isinstance(failure, CacheFull) or is_exhausted(failure)) or not self.tables.close_idle():
                raise
            log.info("%s; what is idle is given up", failure)
            write()

    def drop(self, diff_id: Digest) -> None:
        """Remove a layer that proved unreadable; what is open of it can be read on. Raises CacheFailure."""
        self._data_files.drop(diff_id)
        with changing(self.root), failures_of(self.index_path(diff_id)):
            for path in (
                self.index_path(diff_id),
                self.data_path(diff_id),
                self.map_path(diff_id),
                self.sums_path(diff_id),
            ):
                take_away(path)
            self.promotion.drop(diff_id)

    def close(self) -> None:
        """Let go of the data files that were read from, and of what is in use; what is being read stays open."""
        self._data_files.clear()
        self.uses.close()

    @contextmanager
    def begin_layer(self, size: int = 0) -> Iterator[LayerWriter]:
        """Give a writer for one layer; what publish() has not taken is removed at the end.

        *size* is what it will take at least. Raises CacheFailure, at once where there is not that much room.
        """
        self.budget.reserve(size)
        with ingest_directory(self._ingests) as directory:
            writer = LayerWriter(directory, reserve=self.budget.reserve)
            try:
                yield writer
            finally:
                writer.close()

    @contextmanager
    def begin_partial_layer(self, source: str) -> Iterator[PartialLayerWriter]:
        """Give a writer for a layer whose names are known and whose bytes come later; see begin_layer().

        *source* is what the index says of where its names came from.
        """
        with ingest_directory(self._ingests) as directory:
            writer = PartialLayerWriter(directory, source=source, boot=self.boot, reserve=self.budget.reserve)
            try:
                yield writer
            finally:
                writer.close()

    def publish(self, writer: LayerWriter | PartialLayerWriter, diff_id: Digest) -> None:
        """Make the layer visible, its digests having been found right. Raises CacheFailure; then it is not visible."""
        writer.finish()
        self._young.mark(diff_id, beside=writer.index.with_suffix(".marker"))
        sums = self._write_sums(writer, diff_id)
        with changing(self.root):
            _rename(writer.data_file, self.data_path(diff_id))
            if isinstance(writer, PartialLayerWriter):
                _rename(writer.map_file, self.map_path(diff_id))
            _rename(sums, self.sums_path(diff_id))
            # The index comes last: where it is, all that it names is.
            _rename(writer.index, self.index_path(diff_id))
            with suppress(OSError):  # what an older release kept of the layer
                self.index_path(diff_id).with_suffix(OLD_PACK).unlink(missing_ok=True)
        # One that was open belongs to a file that has no name any more.
        self._data_files.drop(diff_id)

    def _write_sums(self, writer: LayerWriter | PartialLayerWriter, diff_id: Digest) -> Path:
        path = writer.index.with_suffix(SUMS)
        with failures_of(path):
            name = self.index_path(diff_id).relative_to(self.root).as_posix()
            path.write_bytes(format_sums({name: sha256_of(writer.index)}))
        return path

    def recover(self) -> None:
        """Remove what a crash of the machine may have torn, and clear the places of the cache's directories.

        Called before anything of the cache is used. Costs a look at each directory; after a crash, the reading of what
        had just been written. Raises CacheFailure where the directory cannot be used.
        """
        with failures_of(self.root):
            clear_places(self.root, self._note)
            self.promotion.sweep()
            self._young.recover(self._drop_torn)

    def _drop_torn(self, layer: Digest) -> None:
        try:
            reason = wrong_layer(self.root, self.index_path(layer))
        except FileNotFoundError:
            reason = None  # what else there is of it has no owner
        else:
            if reason is None:
                return
            log.warning("layer %s was torn by a crash and will be fetched again: %s", layer, reason)
        self.drop(layer)

    def settle(self) -> None:
        """Wait until all that is visible now is on the disk; takes as long as the disk does. Raises CacheFailure."""
        self._young.settle()

    def settle_soon(self) -> None:
        """Let a thread do that."""
        self._young.settle_soon()

    def sweep(self) -> None:
        """Remove what dead processes left; what living ones, of any daemon, own is not touched. Raises CacheFailure."""
        with failures_of(self._ingests):
            sweep_uses(self.root)
            for ingests in (self._ingests, self.root / OLD_INGESTS):
                sweep_ingests(ingests)
            with suppress(OSError):  # there is none, or a daemon of an older release works there
                (self.root / OLD_INGESTS).rmdir()


def _rename(source: Path, destination: Path) -> None:
    with failures_of(destination):
        try:
            put(source, destination)
        except FileNotFoundError:
            destination.parent.mkdir(parents=True, exist_ok=True)
            put(source, destination)
