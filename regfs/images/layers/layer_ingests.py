"""LayerIngests: runs ingests of layers, limits their number, and refuses layers that proved wrong lately.

A layer is fetched and unpacked once for all threads, daemons and verbs that share the cache (shared_work.py). Threads
that wait for another process see its progress. Used by layer_indexes.py; made by
layer_cache.py. Thread rule: any thread; run() belongs to a flight.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cachetools import TTLCache

from regfs.errors import BadContent, CacheFailure
from regfs.images.answers.blobs import twice_if_wrong
from regfs.images.workers.own_process import workers
from regfs.images.workers.shared_work import SharedWork, Tell
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import layer_compression
from regfs.process.waiting.deadline import current
from regfs.store.files.cached_files import file_chunks
from regfs.store.files.directories import twice_if_deleted
from regfs.store.files.failures import failures_of
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.work_locks import Standing, WorkLocks
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.images.workers.ingest import Progress
    from regfs.layers.formats.format import FindTable, Format
    from regfs.layers.formats.soci import Soci

log = logging.getLogger(__name__)

_ARCHIVE = "application/vnd.oci.image.layer.v1.tar"

LayerKey = tuple[str, Digest, Digest, int]


class LayerBlob(NamedTuple):
    """A layer of an image and where its bytes come from; *origin* is for messages.

    *chunks* yields the bytes of the blob, from the cache or the registry.

    *table_format* is the format of its table of contents, None if its names come from the archive. With a table, *part*
    returns the bytes `[start, stop)` of the blob, or raises RangesRefused; *find_table* finds a table that is not in
    the blob.
    """

    descriptor: Descriptor
    diff_id: Digest
    origin: str
    chunks: Callable[[], Iterator[bytes]]
    part: Callable[[int, int], bytes] | None = None
    table_format: Format | Soci | None = None
    find_table: FindTable | None = None
    hidden: frozenset[bytes] = frozenset()
    """Names in the root that are in the stored index, and are hidden in trees, because the layer's table omits them."""

    @property
    def shown_as(self) -> Digest:
        """The layer's digest in the key of a merged table: stored_as, combined with hidden names if it has some."""
        return without(self.stored_as, self.hidden)

    @property
    def stored_as(self) -> Digest:
        """The layer's key in the store: its diff id; with a table of contents, a digest of table and blob."""
        return self.diff_id if self.table_format is None else stored_by_table(self.descriptor, self.table_format)

    def whole(self) -> LayerBlob:
        """Return the same layer, to be read whole. Its trees hide the same names as with its table."""
        if self.table_format is None:
            return self
        return self._replace(table_format=None, hidden=self.table_format.hidden(self.descriptor))

    @property
    def key(self) -> LayerKey:
        """The key of an ingest and of its refusal.

        It is not the diff id alone: another image may have the same files in a valid blob, or with the right size.
        """
        return "layer", self.stored_as, self.descriptor.digest, self.descriptor.size


def stored_by_table(layer: Descriptor, table_format: Format | Soci) -> Digest:
    """Return the store's key of a layer whose names come from its table: a digest of blob and table.

    The diff id does not suffice: a table may leave out the format's own files and parts of seconds, so its rows differ
    from those of the whole layer; and its chunks are those of one blob, while many blobs may have the same diff id. Nor
    does the blob's digest: another image could name another table for the blob, which this image's manifest does not
    authenticate.
    """
    return Digest.of(f"{layer.digest} {table_format.name} {table_format.table_id(layer)}".encode())


def without(layer: Digest, hidden: frozenset[bytes]) -> Digest:
    """Return a digest that stands for *layer* without the names *hidden*; *layer* itself if there are none."""
    return Digest.of(b"%s without %s" % (str(layer).encode(), b"/".join(sorted(hidden)))) if hidden else layer


def table_format_of(descriptor: Descriptor) -> Format | None:
    """Return the format of the layer's table of contents, None if it has none."""
    if not descriptor.annotations:
        return None
    # Imported here: the import takes a while, and most images have no table.
    from regfs.layers.formats.recognise import recognise

    return recognise(descriptor)


class LayerIngest(NamedTuple):
    """A running ingest of *blob*, in this or another process. Of a left archive the descriptor is the archive's own."""

    blob: LayerBlob
    progress: Progress


class LayerIngests:
    """The ingests into one *store*. One without progress for *stall_s* seconds is ended."""

    def __init__(
        self,
        store: LayerStore,
        locks: WorkLocks,
        *,
        stats: Stats,
        note: Callable[[str], None],
        refused_s: float,
        stall_s: float,
    ) -> None:
        """A layer that proved wrong is tried again after *refused_s* seconds only: names below it are looked up often.

        *note* is called with a sentence about an oddity in a layer that could still be read, or about a killed worker.
        """
        self._store = store
        self._note = note
        self._stats = stats
        self._work = SharedWork(locks, at_once=workers(), stall_s=stall_s)
        self._lock = threading.Lock()
        self._under_way: dict[LayerKey, LayerIngest] = {}
        self._refused: TTLCache[LayerKey, tuple[type[BadContent], str]] = TTLCache(256, refused_s)

    def under_way(self) -> list[LayerIngest]:
        """Return the ingests that are under way."""
        with self._lock:
            return list(self._under_way.values())

    def run(self, blob: LayerBlob, niceness: int = 0, *, names_only: bool = False) -> None:
        """Put the whole layer into the store unless it has it; with *names_only* its index with spans of all of it.

        Raises as ingest_layer() does (workers/ingest.py), Unsupported before anything is fetched, WorkStalled, and the
        errors of the network.
        """
        # Imported here, with all readers of archives: a mount of known images never needs them.
        from regfs.images.workers.ingest import Progress

        layer_compression(blob.descriptor.media_type)
        self._raise_if_refused(blob)
        seen = Progress()

        def follow(standing: Standing) -> None:
            seen.received, seen.inflated, seen.entries, seen.effort = standing
            self._show(blob, seen)

        try:
            is_ours = self._work.run(
                _name_of(blob.key),
                lambda tell: self._store.with_room(partial(self._ingest_here, blob, niceness, names_only, tell)),
                is_done=partial(self._is_done, blob, names_only),
                follow=follow,
            )
        except BadContent as error:
            with self._lock:
                self._refused[blob.key] = type(error), str(error)
            raise
        finally:
            with self._lock:
                self._under_way.pop(blob.key, None)
        if is_ours:
            self._stats.count("layers.ingests")
            self._store.settle_soon()

    def _is_done(self, blob: LayerBlob, names_only: bool) -> bool:
        if self._store.is_whole(blob.diff_id):
            return True
        return names_only and self._store.has_spans_of_all(blob.diff_id, blob.descriptor.digest)

    def _ingest_here(self, blob: LayerBlob, niceness: int, names_only: bool, tell: Tell) -> None:
        from regfs.images.workers.worker import twice_if_killed

        def ingest() -> None:
            twice_if_killed(partial(self._ingest_once, blob, blob, niceness, names_only, tell), self._note)

        if self._index_left_archive(blob, niceness, tell):
            return
        twice_if_deleted(lambda: twice_if_wrong(ingest), self._store.root)
        self._stats.count("layers.bytes", blob.descriptor.size)

    def _index_left_archive(self, blob: LayerBlob, niceness: int, tell: Tell) -> bool:
        """Make the index of the archive that LayerStore.drop_index() has left, if it is the layer's; return whether.

        Nothing is fetched, so an index of an earlier release is made again offline too; nor is the archive copied, so
        that the cache needs no room for a second one.
        """
        from regfs.images.workers.worker import twice_if_killed

        path = self._store.left_archive(blob.diff_id)
        if path is None:
            return False
        try:
            with failures_of(path):
                size = path.stat().st_size
            archive = replace(blob.descriptor, media_type=_ARCHIVE, digest=blob.diff_id, size=size, annotations={})
            source = blob._replace(descriptor=archive, chunks=partial(_chunks_of, path))
            twice_if_killed(partial(self._ingest_once, blob, source, niceness, True, tell), self._note)
        except BadContent as wrong:
            log.warning("%s; the layer is fetched again", wrong)
            self._store.drop(blob.diff_id)
        except CacheFailure as failure:  # what is wrong with the archive is not known; what is fetched replaces it
            log.warning("%s; the layer is fetched again", failure)
        return self._store.is_whole(blob.diff_id)

    def _ingest_once(self, blob: LayerBlob, source: LayerBlob, niceness: int, names_only: bool, tell: Tell) -> None:
        from regfs.images.workers.ingest import Progress, ingest_layer

        progress = Progress()
        self._show(blob, progress, source=source)

        def report(now: Progress) -> None:
            tell(Standing(now.received, now.inflated, now.entries, now.effort))

        ingest_layer(
            current().watch(source.chunks()),
            descriptor=source.descriptor,
            diff_id=blob.diff_id,
            store=self._store,
            progress=progress,
            report=report,
            niceness=niceness,
            stall_s=self._work.stall_s,
            names_only=names_only,
        )
        if progress.remark:
            self._note(f"{blob.origin}: layer {blob.descriptor.digest}: {progress.remark}")

    def _show(self, blob: LayerBlob, progress: Progress, *, source: LayerBlob | None = None) -> None:
        with self._lock:
            self._under_way[blob.key] = LayerIngest(source or blob, progress)

    def _raise_if_refused(self, blob: LayerBlob) -> None:
        with self._lock:
            refused = self._refused.get(blob.key)
        if refused is not None:
            raise refused[0](refused[1])


def _chunks_of(path: Path) -> Iterator[bytes]:
    with failures_of(path):
        yield from file_chunks(path)


def _name_of(key: LayerKey) -> str:
    """Return the name of the layer's lock: a digest of the key, so that its length is bounded."""
    words = " ".join(map(str, key))
    return f"layer-{key[1].encoded[:16]}-{Digest.of(words.encode()).encoded[:32]}"
