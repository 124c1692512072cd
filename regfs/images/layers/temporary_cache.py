"""Overflow: a second, temporary cache, for the names of images of which the cache cannot take even these.

On a disk without any room, or one that became read-only, the indexes and merged tables of new images go into a
temporary directory until this process ends, and their bytes are fetched each time they are read. The cache is tried
again some seconds later, so that images move there once it can be written.
Used by layer_cache.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from cachetools import TTLCache

from regfs.errors import CacheDamaged, CacheFailure, WorkerKilled
from regfs.images.layers.layer_indexes import LayerIndexes
from regfs.images.layers.layer_ingests import LayerBlob
from regfs.model.digest import Digest
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.rootfs import Rootfs
from regfs.store.files.failures import is_exhausted
from regfs.store.layers.content import Content, Nothing, OpenContent
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore

log = logging.getLogger(__name__)

T = TypeVar("T")


class TemporaryCache(Protocol):
    """What is used of a LayerCache, which is made by code above this module."""

    @property
    def store(self) -> LayerStore: ...

    def rootfs(self, blobs: Sequence[LayerBlob]) -> Rootfs: ...

    def layer_tree(self, blob: LayerBlob) -> FileTree: ...

    def in_use(self, layer: Digest) -> tuple[LayerIndex | None, LayerBlob | None]: ...

    def open(self, content: Content) -> OpenContent: ...

    def stop(self) -> None: ...


MakeOverflow = Callable[[], tuple[TemporaryCache, Callable[[], None]]]
"""Makes the layer cache in a temporary directory, and what removes that. Raises OSError."""

_MOST_REFUSED = 1024
REFUSED_S = 30.0


class Overflow:
    """The temporary cache, made by *make* when it is first needed; None: there is none."""

    def __init__(self, make: MakeOverflow | None, store: LayerStore, indexes: LayerIndexes) -> None:
        """*store* and *indexes* are those of the cache."""
        self._make = make
        self._store = store
        self._indexes = indexes
        self._remove: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._cache: TemporaryCache | None = None
        self._refused: TTLCache[Hashable, bool] = TTLCache(_MOST_REFUSED, REFUSED_S)

    def run(self, key: Hashable, here: Callable[[], T], there: Callable[[TemporaryCache], T]) -> T:
        """Return the result of *here*; if the cache cannot be written, that of *there*, called with the temporary one.

        Within some seconds *there* alone is called for *key*. Raises what *here* raises if *there* fails, too.
        """
        cache = self._cache
        with self._lock:
            was_refused = cache is not None and key in self._refused
        if cache is not None and was_refused:
            return there(cache)
        try:
            return here()
        except CacheFailure as failure:
            cache = self._made_after(failure)
            if cache is None:
                raise
            log.warning("%s; a temporary directory is used instead: %s", failure, cache.store.root)
            cache.store.unkept.tell(failure)
            try:
                found = there(cache)
            except CacheFailure as again:
                raise failure from again
        with self._lock:
            self._refused[key] = True
        return found

    def opened(self, content: Content) -> OpenContent | None:
        """Return the opened *content* of a layer that is in use in the temporary cache alone; else None.

        From the cache if that has the layer's bytes, or can take them now. Waits, and raises as LayerCache.open().
        """
        cache = self._cache
        if cache is None or isinstance(content, Nothing) or self._indexes.in_use(content.layer)[0] is not None:
            return None
        index, blob = cache.in_use(content.layer)
        if index is None or blob is None:
            return None
        if blob.table_format is None:
            with suppress(CacheFailure):
                self._keep(blob, index.layout().size)
                return self._store.open_content(content)
        return cache.open(content)

    def opened_after(self, failure: CacheFailure, content: Content) -> OpenContent:
        """Return the opened *content* of a layer in use whose bytes are gone, and which the cache cannot take again.

        Waits for the names of the layer in the temporary cache. Raises *failure* where that does not help.
        """
        blob = None if isinstance(content, Nothing) else self._indexes.in_use(content.layer)[1]
        cache = None if blob is None or blob.table_format is not None else self._made_after(failure)
        if blob is None or cache is None:
            raise failure
        cache.store.unkept.tell(failure)
        try:
            tree = cache.layer_tree(blob)
            opened = cache.open(content)
        except CacheFailure as again:
            raise failure from again
        del tree  # until here it kept the layer in use there
        return opened

    def _keep(self, blob: LayerBlob, size: int) -> None:
        """Put the plain layer, of *size* bytes, into the cache unless that has it. Raises CacheFailure."""
        if self._store.is_ingested(blob.stored_as):
            return
        with self._lock:
            if blob.stored_as in self._refused:
                raise CacheFailure(f"{blob.stored_as} could not be kept some seconds ago")
        try:
            self._store.budget.require(size)
            self._indexes.index(blob)
        except CacheFailure:  # not WouldBlock: the caller that may wait comes next
            with self._lock:
                self._refused[blob.stored_as] = True
            raise

    def stop(self) -> None:
        """Remove the temporary cache."""
        with self._lock:
            cache, self._cache, self._make = self._cache, None, None
        if cache is not None:
            cache.stop()
            cache.store.close()
            self._remove()

    def _made_after(self, failure: CacheFailure) -> TemporaryCache | None:
        """Return the temporary cache; None if it cannot help against *failure*."""
        if isinstance(failure, CacheDamaged | WorkerKilled) or is_exhausted(failure):
            return None
        with self._lock:
            if self._cache is None and self._make is not None:
                try:
                    self._cache, self._remove = self._make()
                except OSError as error:
                    log.warning("no temporary directory can take the place of the cache: %s", error)
            return self._cache
