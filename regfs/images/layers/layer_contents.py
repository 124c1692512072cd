"""LayerContents: opens and fetches the bytes of files in layers that are in use, whichever way their layer has them.

    data file here           it is read
    lazy layer               missing chunks are fetched when they are read (partial_layers.py)
    plain layer, evicted     by ranges of its blob where its index has spans (plain_parts.py); else the whole layer
    plain layer, no room     by ranges, or by reading the layer up to them; the index has spans for all of it then

Used by layer_cache.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from cachetools import TTLCache

from regfs.errors import CacheDamaged, CacheFailure
from regfs.images.layers.layer_indexes import LayerIndexes, named
from regfs.images.layers.layer_ingests import LayerBlob
from regfs.images.layers.partial_layers import PartialLayers
from regfs.images.layers.plain_parts import PlainParts
from regfs.model.digest import Digest
from regfs.store.files.failures import without_frames
from regfs.store.layers.content import Content, Nothing, OpenContent, OpenPartialContent, Span
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore

log = logging.getLogger(__name__)

_MOST_REFUSALS = 1024
_REFUSED_S = 30.0


class Reading(Protocol):
    """Gets notice of opens and reads of the files in lazy layers; Starts implements it."""

    def opened(self, span: Span) -> None: ...

    def head_read(self, span: Span, head: bytes) -> None: ...


class LayerContents:
    """The bytes of the layers of one *store*."""

    def __init__(
        self,
        store: LayerStore,
        indexes: LayerIndexes,
        partial_layers: PartialLayers,
        plain: PlainParts,
        *,
        reading: Reading,
    ) -> None:
        """*reading* learns of opens and reads of lazy layers."""
        self._store = store
        self._indexes = indexes
        self._partial = partial_layers
        self._plain = plain
        self._reading = reading
        self._lock = threading.Lock()
        # Layers that the cache could not take lately: each attempt fetches a part of the layer.
        self._refusals: TTLCache[Digest, CacheFailure] = TTLCache(_MOST_REFUSALS, _REFUSED_S)

    def open(self, content: Content) -> OpenContent:
        """See LayerCache.open()."""
        if isinstance(content, Nothing):
            return self._store.open_content(content)
        index, blob = self._indexes.in_use(content.layer)
        with self._lock:
            is_refused = content.layer in self._refusals
        try:
            return self._opened(content, index, blob, alone=not is_refused)
        except CacheDamaged as failure:
            if blob is None:
                raise
            log.info("%s; the layer is fetched again", failure)
        refusal = self._restore(index, blob)
        try:
            return self._opened(content, index, blob, alone=False)
        except CacheDamaged as failure:
            raise refusal or failure from None  # a sparse file of too many extents, of which no span has the bytes

    def _restore(self, index: LayerIndex | None, blob: LayerBlob) -> CacheFailure | None:
        """Ingest the layer again; if the cache cannot take a plain layer, only its names and spans: return why."""
        layer = blob.stored_as
        try:
            with self._lock:
                refusal = self._refusals.get(layer)
            if refusal is not None:
                raise without_frames(refusal)
            try:
                if index is not None and blob.table_format is None:
                    self._store.budget.require(index.layout().tar_size)  # the rest may be holes
                self._indexes.restore(index, blob)
            except CacheFailure as failure:
                with self._lock:
                    self._refusals[layer] = without_frames(failure)
                raise
        except CacheFailure as failure:
            with named(blob.origin):
                self._indexes.keep_names(blob, failure)
            return failure
        return None

    def _opened(self, content: Span, index: LayerIndex | None, blob: LayerBlob | None, *, alone: bool) -> OpenContent:
        """Return the opened *content*; *alone*: if it needs a whole layer, raise CacheDamaged."""
        if index is None or blob is None:
            return self._store.open_content(content)
        if blob.table_format is None:
            return self._opened_plain(content, index, blob, alone=alone)
        self._reading.opened(content)
        opened = self._partial.open(index, blob, content)
        if isinstance(opened, OpenPartialContent):
            opened.on_head = self._reading.head_read
        return opened

    def _opened_plain(self, content: Span, index: LayerIndex, blob: LayerBlob, *, alone: bool) -> OpenContent:
        try:
            return self._store.open_content(content)
        except CacheDamaged:
            # A layer that was dropped as damaged has no names any more, either.
            has_names = self._store.has_names(content.layer)
            opened = self._plain.open(index, blob, content, alone=alone) if has_names else None
            if opened is None:
                raise
            return opened

    def complete(self, blobs: Sequence[LayerBlob], *, compare: bool = False, stays: bool = False) -> None:
        """See LayerCache.complete()."""
        blobs = [self._indexes.as_it_is_here(blob) for blob in blobs]
        if missing := sum(map(self._missing_bytes, blobs)):
            self._store.budget.require(missing)
        for blob in blobs:
            index = self._indexes.index_with_content(blob)
            if blob.table_format is not None:
                with named(blob.origin):
                    self._partial.complete(index, blob, compare=compare, stays=stays)

    def _missing_bytes(self, blob: LayerBlob) -> int:
        """Return how many bytes the cache lacks of a plain layer, at least; 0 for a lazy one."""
        if blob.table_format is not None or self._store.is_ingested(blob.stored_as):
            return 0
        index, _ = self._indexes.in_use(blob.stored_as)
        return blob.descriptor.size if index is None else index.layout().tar_size

    def fetch(
        self, contents: Iterable[Content], report: Callable[[str, int, int], None], *, gives_way: bool = False
    ) -> None:
        """See LayerCache.fetch()."""
        spans: dict[Digest, list[tuple[int, int]]] = {}
        for content in contents:
            if not isinstance(content, Nothing):
                spans.setdefault(content.layer, []).append((content.offset, content.offset + content.size))
        for layer, wanted in spans.items():
            index, blob = self._indexes.in_use(layer)
            if index is None or blob is None:
                continue
            with named(blob.origin):
                self._fetch(index, blob, wanted, partial(report, blob.descriptor.digest.encoded), gives_way)

    def _fetch(
        self,
        index: LayerIndex,
        blob: LayerBlob,
        wanted: Sequence[tuple[int, int]],
        report: Callable[[int, int], None],
        gives_way: bool,
    ) -> None:
        """Fetch the ranges *wanted* of the data file, or the whole layer where only that has them."""
        is_plain = blob.table_format is None
        has_names_only = self._store.has_names(blob.stored_as) and not self._store.is_ingested(blob.stored_as)
        if is_plain and has_names_only and self._plain.fetch(index, blob, wanted, report):
            return
        self._indexes.index_with_content(blob)
        if not is_plain:
            self._partial.fetcher(index, blob).fetch(wanted, report, gives_way=gives_way)

    def has_all(self, layers: Sequence[Digest]) -> bool:
        """See LayerCache.has_all()."""
        blobs = [self._indexes.in_use(layer)[1] for layer in layers]
        return all(blob is None or self._has_all(blob) for blob in blobs)

    def _has_all(self, blob: LayerBlob) -> bool:
        if blob.table_format is None:
            return self._store.is_ingested(blob.stored_as)
        return self._store.is_complete(blob.stored_as)
