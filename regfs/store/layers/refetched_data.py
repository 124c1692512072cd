"""Opens what was fetched again of a plain layer whose data file is not here: chunks.py has the format.

    layers/<diff id>.parts     like the data file, with holes for missing chunks, and the map of its chunks at the end

Where the cache cannot take that file, memory takes its place: a file that stays one hole, so that each chunk is held
for its readers only (unkept_chunks.py). Used by images/layers/plain_parts.py and unkept_blobs.py. Thread rule: any
thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from regfs.errors import CacheDamaged, CacheFailure, CacheFull
from regfs.model.digest import Digest
from regfs.store.files.cached_files import put
from regfs.store.files.failures import failures_of
from regfs.store.layers.chunk_map import empty_map
from regfs.store.layers.chunks import PartialData
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.open_retry import open_with_retry
from regfs.store.locks.file_locks import changing, new_locked_file

log = logging.getLogger(__name__)

_ATTEMPTS = 3


def open_parts(
    store: LayerStore, layer: Digest, *, size: int, count: int, table: bytes, let_go: Callable[[], object]
) -> PartialData:
    """Return the parts of *layer*, whose data file has *size* bytes in *count* chunks; *table* is the id of these.

    The file is made if it is missing or of other chunks. If it cannot be made, memory takes its place. *let_go* is
    called when others need the descriptors.
    """
    path = store.parts_path(layer)
    reserve = _reserve_for(store, size)

    def opened() -> PartialData:
        return PartialData(
            path, boot=store.boot, table=table, reserve=reserve, unkept=store.unkept, let_go=let_go, size=size
        )

    try:
        for _ in range(_ATTEMPTS):
            try:
                return open_with_retry(path, opened, store.tables)
            except CacheDamaged as missing:
                log.debug("%s", missing)
            _make(store, path, size=size, content=empty_map(count, boot=store.boot, table=table))
        return open_with_retry(path, opened, store.tables)
    except CacheFailure as failure:
        return open_in_memory(store, size=size, count=count, table=table, let_go=let_go, failure=failure)


def _reserve_for(store: LayerStore, size: int) -> Callable[[int], None]:
    """Return what makes room for parts of a layer of *size* bytes: for one that cannot fit, nothing is evicted."""
    try:
        store.budget.require(size)
    except CacheFull:
        return store.budget.reserve_free
    return store.budget.reserve


def _make(store: LayerStore, path: Path, *, size: int, content: bytes) -> None:
    """Put a file without chunks at *path*; *content* is its map. Raises CacheFailure."""
    store.budget.reserve_document(len(content))
    with failures_of(path):
        fd, temporary = new_locked_file(path.parent, ".parts-")
        try:
            os.fchmod(fd, 0o644)
            os.pwrite(fd, content, size)
            with changing(store.root):
                put(temporary, path)
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def open_in_memory(
    store: LayerStore,
    *,
    size: int,
    count: int,
    table: bytes,
    let_go: Callable[[], object],
    failure: CacheFailure,
) -> PartialData:
    """Return parts of which nothing is kept, because of *failure*. Raises CacheFailure."""
    with failures_of(store.root):
        fd = os.memfd_create("regfs parts")  # its hole takes no memory
        try:
            os.pwrite(fd, empty_map(count, boot=store.boot, table=table), size)
            return PartialData(
                Path(f"/proc/self/fd/{fd}"), boot=store.boot, table=table, reserve=store.budget.reserve,
                unkept=store.unkept, let_go=let_go, size=size, refusal=failure,
            )  # fmt: skip
        finally:
            os.close(fd)
