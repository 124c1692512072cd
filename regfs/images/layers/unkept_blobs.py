"""UnkeptBlobs: reads whole blobs that the cache cannot take, in verified pieces, and keeps nothing of them.

A blob is verified once all of it has come, and on a full disk there is no place for it until then. So it is received
twice: all of it, to verify it and to note the digest of each of its pieces; and each piece when it is read, verified
against that. Memory holds the digests, and the pieces that were read last (store/layers/unkept_chunks.py). Used by
layer_cache.py. Thread rule: any thread; each blob is measured by one flight.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from cachetools import LRUCache

from regfs.errors import CacheDamaged, CacheFailure
from regfs.images.answers.blobs import twice_if_wrong
from regfs.images.lazy.foreground import Foreground
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.process.syscalls import give_memory_back
from regfs.process.waiting.deadline import current
from regfs.process.waiting.single_flight import Flights
from regfs.store.files.failures import is_exhausted
from regfs.store.layers.chunks import StoredChunk
from regfs.store.layers.content import OpenContent, OpenPartialContent, Span
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.refetched_data import open_in_memory
from regfs.store.layers.span_table import SpanTable
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.images.lazy.chunk_fetching import ChunkFetcher

PIECE = 4 << 20
# Half a kilobyte of memory each. Larger blobs have larger pieces.
_MOST_PIECES, _PIECES_KEPT = 1 << 12, 1 << 15

_Key = tuple[Digest, int]


class UnkeptBlobs:
    """The blobs that the cache of *store* cannot take. *note* is called with messages for users."""

    def __init__(
        self,
        store: LayerStore,
        *,
        flights: Flights,
        stats: Stats,
        foreground: Foreground,
        note: Callable[[str], None],
    ) -> None:
        self._store = store
        self._flights = flights
        self._stats = stats
        self._foreground = foreground
        self._note = note
        self._lock = threading.Lock()
        # Digests of pieces that were taken from a verified blob stay right.
        self._tables: LRUCache[_Key, SpanTable] = LRUCache(_PIECES_KEPT, lambda table: max(1, table.count))
        self._fetchers: dict[_Key, ChunkFetcher] = {}

    def open(self, repository: Repository, descriptor: Descriptor, failure: CacheFailure) -> OpenContent:
        """Return the opened blob of *repository*, which the cache cannot take because of *failure*.

        Receives all of it, unless that was done lately, and each piece again when it is read: both wait, and raise
        DigestMismatch, BadContent, Unsupported, and the errors of the network. Raises *failure* if this is no remedy.
        """
        if isinstance(failure, CacheDamaged) or is_exhausted(failure):
            raise failure
        measure = partial(self._measured, repository, descriptor, failure)
        key = descriptor.digest, descriptor.size
        with self._lock:
            table = self._tables.get(key)
        if table is None:
            table = self._flights.run(("pieces", *key), lambda: twice_if_wrong(measure), streams=True)
        with self._lock:
            self._tables[key] = table
            fetcher = self._fetchers.get(key) or self._made(key, repository, descriptor, table, failure)
        fetcher.touch()
        self._store.unkept.tell(failure)
        return OpenPartialContent(Span(descriptor.digest, 0, descriptor.size), fetcher.data, ensure=fetcher.ensure)

    def _measured(self, repository: Repository, descriptor: Descriptor, failure: CacheFailure) -> SpanTable:
        """Receive the whole blob, and return the pieces of it; memory holds a blob of one piece for its reader."""
        self._stats.count("blobs.measured")
        size = max(PIECE, -(-descriptor.size // _MOST_PIECES))
        with closing(current().watch(repository.blobs.chunks(descriptor))) as chunks:
            if descriptor.size > PIECE:
                table = SpanTable(str(descriptor.digest), list(_pieces(chunks, size)), {})
                give_memory_back()
                return table
            content = b"".join(chunks)
        self._store.unkept.hold(Digest.of(content), content, failure)
        return SpanTable(str(descriptor.digest), list(_pieces([content], size)), {})

    def _made(
        self, key: _Key, repository: Repository, descriptor: Descriptor, table: SpanTable, failure: CacheFailure
    ) -> ChunkFetcher:
        from regfs.images.lazy.chunk_fetching import ChunkFetcher
        from regfs.images.lazy.chunk_source import LayerBytes
        from regfs.images.lazy.plain_spans import unpack_spans

        # Called under a lock, while idle files are closed: must not wait for another lock.
        let_go = partial(self._fetchers.pop, key, None)
        data = open_in_memory(
            self._store, size=descriptor.size, count=table.count, table=table.id, let_go=let_go, failure=failure
        )
        self._store.tables.add(data, descriptors=2)
        blobs = repository.blobs
        source = LayerBytes(
            f"{repository.name}@{descriptor.digest}",
            partial(blobs.part, descriptor),
            partial(blobs.chunks, descriptor),
            partial(unpack_spans, table.restart),
        )
        fetcher = ChunkFetcher(
            ("blob", *key), table=table, data=data, source=source, flights=self._flights, stats=self._stats,
            foreground=self._foreground, note=self._note,
        )  # fmt: skip
        self._fetchers[key] = fetcher
        return fetcher


def _pieces(chunks: Iterable[bytes], most: int) -> Iterator[StoredChunk]:
    """Yield the pieces, each of *most* bytes but the last, of the blob in *chunks*."""
    hasher, start, stop, number = hashlib.sha256(), 0, 0, 0
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            part = view[: start + most - stop]
            hasher.update(part)
            view, stop = view[len(part) :], stop + len(part)
            if stop - start == most:
                yield _piece(number, start, stop, hasher.hexdigest())
                hasher, start, number = hashlib.sha256(), stop, number + 1
    if stop > start:
        yield _piece(number, start, stop, hasher.hexdigest())


def _piece(number: int, start: int, stop: int, sha256: str) -> StoredChunk:
    return StoredChunk(number, start, stop - start, start, stop - start, 0, Digest("sha256", sha256))
