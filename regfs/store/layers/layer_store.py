"""The store of layers: opens, publishes and drops their indexes and data files.

    layers/<diff id>.index  layers/<diff id>.tar       a layer: its names and its bytes. The index is written last; an
                                                       eviction may remove the bytes alone
    layers/<diff id>.parts                             what was fetched again of evicted bytes (chunks.py)
    layers/<digest of the blob>.index .tar .chunks     a lazy layer, whose bytes are fetched on demand (chunks.py)
    layers/<diff id>.sums                              the checksum of its index (checksums.py)
    layers/<diff id>.digests                           digests of its files, for comparisons (content_digests.py)
    objects/<boot id>/<diff id>/<offset>-<size>        a copy of a big file, for passthrough (promotion.py)
    young/<token>                                      a layer that may not be flushed yet (unsettled_layers.py)
    uses/<token>                                       what a process uses (in_use.py)
    ingests/<token>…                                   an ingest under way (ingest_directories.py)
    locks/<name>                                       the ingest or merge that a process is doing (work_locks.py)

The data file of a plain layer begins with its tar stream, so that its name, the diff id, verifies it; data_writer.py
has its layout. A file that several layers have is stored several times.

A layer is visible before it is durable; unsettled_layers.py describes how that survives a crash. Files are opened on
demand, and closed when the process has too many open (open_tables.py).

Used by images/. Thread rule: any thread; several daemons may share the directory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import finalize

from regfs.errors import CacheDamaged, CacheFailure, CacheFull
from regfs.model.cache_limits import DEFAULT_LIMITS, Limits
from regfs.model.digest import Digest
from regfs.store.eviction.budget import Budget
from regfs.store.eviction.in_use import Uses, sweep_uses
from regfs.store.eviction.inventory import IMAGES, INGESTS, LAYERS, OLD_INGESTS
from regfs.store.eviction.names_budget import NamesBudget
from regfs.store.files.boot_id import boot_id
from regfs.store.files.cached_files import take_away
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
from regfs.store.layers.ingest_directories import abandon_ingest, ingest_directory, sweep_ingests
from regfs.store.layers.layer_files import LayerFiles
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_names import name_of
from regfs.store.layers.layer_writer import LayerWriter, PartialLayerWriter
from regfs.store.layers.open_retry import open_with_retry
from regfs.store.layers.promotion import BIG, PartialSource, Promotion
from regfs.store.layers.publication import put_in_place
from regfs.store.layers.unkept_chunks import UnkeptChunks
from regfs.store.layers.unsettled_layers import UnsettledLayers
from regfs.store.layers.wrong_layers import wrong_layer
from regfs.store.locks.file_locks import changing, sweep_unlocked, touch
from regfs.store.tables.open_tables import OpenTables
from regfs.store.tables.table import MakeAgain

log = logging.getLogger(__name__)

# An index has at least so many bytes, and a part of those of its layer.
_LEAST_INDEX, _INDEX_SHARE = 32 << 10, 256


class LayerStore(LayerFiles):
    """The layers below *root*. *boot* is this boot's id; *limits* what the cache may hold (budget.py).

    *tables* bounds what the process has open: one for all stores and trees of it.
    """

    def __init__(
        self,
        root: Path,
        *,
        boot: str = "",
        limits: Limits = DEFAULT_LIMITS,
        tables: OpenTables | None = None,
        note: Callable[[str], None] = log.warning,
        names_only: bool = False,
    ) -> None:
        """*names_only*: refuse bytes of files (names_budget.py)."""
        super().__init__(root, boot=boot or boot_id())
        self._note = note
        self.tables = tables or OpenTables()
        budget = NamesBudget if names_only else Budget
        self.budget = budget(root, limits=limits, let_go=self.tables.close_idle, note=note)
        self._young = UnsettledLayers(root / "young", boot=self.boot)
        self._ingests = root / INGESTS
        self._under_way: set[Path] = set()
        self._beginning = threading.Lock()
        self._is_closed = False
        self.uses = Uses(root)
        self.unkept = UnkeptChunks(note, tables=self.tables)
        self._data_files = DataFiles(self.data_path, self.tables)
        self.promotion = Promotion(
            root / "objects", boot=self.boot, budget=self.budget, name_of=name_of, data_file=self._data_file
        )

    def index(self, diff_id: Digest, *, make_again: MakeAgain | None = None) -> LayerIndex:
        """Return the layer's index, opened at its first query. While it is referenced, no file of the layer is evicted.

        *make_again* ingests the layer again where it was deleted by hand (see Table). Raises NotFound, CacheFailure.
        """
        path = self.index_path(diff_id)
        index = LayerIndex(path, tables=self.tables, use=self.uses.announce(path), make_again=make_again)
        touch(path)
        # The data file may be evicted after its index. An open one would keep its room on the disk.
        finalize(index, self._data_files.drop, diff_id).atexit = False
        return index

    def open_index(self, diff_id: Digest) -> LayerIndex:
        """Return the layer's index, open. Raises as index(), and CacheDamaged: drop the layer and ingest it again."""
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
        file = self._data_file_with(content)
        if is_big:
            return OpenBigContent(file.fd, content, shared=file, reading=self.promotion)
        return OpenContent(file.fd, content.size, start=content.offset, shared=file)

    def partial_data(self, layer: Digest, let_go: Callable[[], object] = lambda: None, *, size: int = 0) -> PartialData:
        """Return the data file and map of a lazy layer; the file has *size* bytes.

        *let_go* is called when others need the descriptors; it drops all references but those of open files. Raises
        CacheDamaged where the layer is gone, torn or cut off (it is dropped then), CacheFailure.
        """
        path, reserve = self.map_path(layer), self.budget.reserve

        def opened() -> PartialData:
            return PartialData(
                self.data_path(layer), path, boot=self.boot, reserve=reserve, unkept=self.unkept, let_go=let_go,
                size=size,
            )  # fmt: skip

        try:
            data = open_with_retry(path, opened, self.tables)
        except CacheDamaged:  # a file is gone, or the map is torn or of another release
            self.drop(layer)
            raise
        self.drop_if_cut(layer, data)
        self.tables.add(data, descriptors=2)
        return data

    def drop_if_cut(self, layer: Digest, data: PartialData) -> None:
        """Raise CacheDamaged where the data file of a lazy layer has lost its end; the layer is removed then."""
        try:
            data.check()
        except CacheDamaged:
            with suppress(OSError):
                if data.is_file_at(self.data_path(layer)):  # otherwise the layer was made again meanwhile
                    self.drop(layer)
            raise

    def open_partial(
        self,
        span: Span,
        data: PartialData,
        ensure: Callable[[int, int], Pieces],
        *,
        is_here: Callable[[], bool] | None = None,
    ) -> OpenContent:
        """Return the opened *span* of a lazy layer, whose chunks *ensure* fetches into *data*.

        Raises CacheFailure. A big span may be promoted once *is_here* returns that the data file has all of it;
        None: never.
        """
        read_through = None
        if is_here is not None and span.size >= BIG:
            if (fd := self.promotion.open(span)) is not None:
                return OpenContent(fd, span.size)
            read_through = partial(self.promotion.read_on, span, PartialSource(data, is_here))
        return OpenPartialContent(span, data, ensure=ensure, read_through=read_through)

    def _data_file_with(self, span: Span) -> DataFile:
        file = self._data_file(span.layer)
        if span.offset + span.size > file.size:
            self.drop(span.layer)
            raise CacheDamaged(f"{self.data_path(span.layer)}: cut off after {file.size} bytes")
        return file

    def _data_file(self, layer: Digest) -> DataFile:
        """Return the data file of *layer*, opened. Raises CacheDamaged where it is gone; CacheFailure."""
        return self._data_files.find(layer) or open_with_retry(
            self.data_path(layer), lambda: self._data_files.open(layer), self.tables
        )

    def with_room(self, write: Callable[[], None]) -> None:
        """Call *write*; where the cache is full or descriptors run out, release what is idle and call it again.

        Needed in a worker process that writes a big layer: the images that this process visited last count as in use.
        """
        try:
            write()
        except CacheFailure as failure:
            if not (isinstance(failure, CacheFull) or is_exhausted(failure)) or not self.tables.close_idle():
                raise
            log.info("%s; what is idle is given up", failure)
            write()

    def drop(self, diff_id: Digest) -> None:
        """Remove a layer that is damaged; its open files stay readable. Raises CacheFailure."""
        self._take_away(diff_id, self.paths_of(diff_id))

    def drop_index(self, diff_id: Digest) -> None:
        """Remove what a plain layer has beside its data file, which is its archive. Raises CacheFailure.

        Another index can be made from it, and its bytes are verified then. Of a lazy layer nothing is left.
        """
        archive = None if self.map_path(diff_id).exists() else self.data_path(diff_id)
        self._take_away(diff_id, [path for path in self.paths_of(diff_id) if path != archive])

    def _take_away(self, diff_id: Digest, paths: Iterable[Path]) -> None:
        self._data_files.drop(diff_id)
        with changing(self.root), failures_of(self.index_path(diff_id)):
            for path in paths:
                take_away(path)
            self.promotion.drop(diff_id)

    def close(self) -> None:
        """Close the data files and end all uses and ingests; files that are being read stay open."""
        with self._beginning:
            self._is_closed = True
            for directory in tuple(self._under_way):
                abandon_ingest(directory)
        self._data_files.clear()
        self.uses.close()

    @contextmanager
    def _ingest(self) -> Iterator[Path]:
        with ExitStack() as stack:
            with self._beginning:
                if self._is_closed:
                    raise CacheFailure(f"{self.root} is closed: this process is ending")
                directory = stack.enter_context(ingest_directory(self._ingests))
                self._under_way.add(directory)
            stack.callback(self._under_way.discard, directory)
            yield directory

    @contextmanager
    def begin_layer(self, size: int = 0) -> Iterator[LayerWriter]:
        """Yield a writer for one layer; files that publish() has not taken are removed at the end of the block.

        *size* is a lower bound of its size. Raises CacheFailure, at once where there is not that much room.
        """
        self.budget.reserve(size)
        with self._ingest() as directory:
            writer = LayerWriter(directory, reserve=self.budget.reserve)
            try:
                yield writer
            finally:
                writer.close()

    @contextmanager
    def begin_names(self, size: int) -> Iterator[LayerWriter]:
        """Yield a writer for the index of a layer of *size* bytes, which cannot be kept; see begin_layer()."""
        self.budget.reserve_document(_LEAST_INDEX + size // _INDEX_SHARE)
        with self._ingest() as directory:
            writer = LayerWriter(directory, reserve=self.budget.reserve_document, names_only=True)
            try:
                yield writer
            finally:
                writer.close()

    @contextmanager
    def begin_partial_layer(self, source: str) -> Iterator[PartialLayerWriter]:
        """Yield a writer for a lazy layer; see begin_layer().

        *source* is the format that its names come from.
        """
        with self._ingest() as directory:
            writer = PartialLayerWriter(directory, source=source, boot=self.boot, reserve=self.budget.reserve_table)
            try:
                yield writer
            finally:
                writer.close()

    def publish(self, writer: LayerWriter | PartialLayerWriter, diff_id: Digest) -> None:
        """Make the layer, which is verified, visible. Raises CacheFailure; the layer is not visible then."""
        writer.finish()
        put_in_place(writer, self, diff_id, mark=self._young.mark)
        # A data file that is open has been replaced.
        self._data_files.drop(diff_id)

    def recover(self) -> None:
        """Remove layers that a crash of the machine may have torn, and move away what blocks the cache's directories.

        Called before any use of the cache. Lists each directory; after a crash, reads the layers that had just been
        written. Raises CacheFailure where the directory cannot be used.
        """
        with failures_of(self.root):
            clear_places(self.root, self._note)
            self.promotion.sweep()
            self._young.recover(self._drop_torn)

    def _drop_torn(self, layer: Digest) -> None:
        try:
            reason = wrong_layer(self.root, self.index_path(layer))
        except FileNotFoundError:
            reason = None  # without an index its other files are leftovers
        else:
            if reason is None:
                return
            log.warning("layer %s was torn by a crash and will be fetched again: %s", layer, reason)
        self.drop(layer)

    def settle(self) -> None:
        """Wait until the visible layers are on the disk; takes as long as the disk does. Raises CacheFailure."""
        self._young.settle()

    def settle_soon(self) -> None:
        """Start a thread that calls settle()."""
        self._young.settle_soon()

    def sweep(self) -> None:
        """Remove the leftovers of dead processes, of all daemons of this cache. Raises CacheFailure."""
        with failures_of(self._ingests):
            sweep_uses(self.root)
            for tables in (IMAGES, LAYERS):
                sweep_unlocked(self.root / tables)
            for ingests in (self._ingests, self.root / OLD_INGESTS):
                sweep_ingests(ingests)
            with suppress(OSError):  # there is none, or a daemon of an older release works there
                (self.root / OLD_INGESTS).rmdir()
