"""Ingests a layer: reads it with layers/ and writes it with store/, in this thread or in a worker.

A small layer is ingested in the calling thread. A big one is ingested by a process of its own (ingest_main.py), which
gets the compressed bytes through a pipe: the daemon's interpreter stays free to answer the kernel, while connections
and credentials stay in the daemon. Used by layer_ingests.py. Thread rule: any thread; an ingest belongs to its caller.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from regfs.errors import CacheFailure
from regfs.images.workers.shared_work import STALL_S
from regfs.images.workers.worker import Told, started
from regfs.layers.ingest import Progress, run_ingest
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.store.layers.layer_store import LayerStore

__all__ = ["Progress", "ingest_here", "ingest_layer"]

log = logging.getLogger(__name__)

SMALL_LAYER = 1 << 20
"""Layers below this many compressed bytes are ingested in the calling thread: a process costs some 80 ms."""


def _nothing(_: Progress) -> None:
    pass


def ingest_layer(
    chunks: Iterable[bytes],
    *,
    descriptor: Descriptor,
    diff_id: Digest,
    store: LayerStore,
    progress: Progress | None = None,
    report: Callable[[Progress], None] = _nothing,
    niceness: int = 0,
    stall_s: float = STALL_S,
    names_only: bool = False,
) -> None:
    """Put the layer that *descriptor* names, with the bytes *chunks*, into *store*; with *names_only* its index alone.

    The layer is visible when this returns, and not if it raises. It is on the disk only after store.settle(). *report*
    is called after each chunk, and when the worker reports progress, in any thread. *niceness* (nice(2)) is that of the
    worker; *stall_s* is how many seconds the worker may make no progress while chunks wait. Blocks as long as *chunks*
    does, and raises its errors.

    Raises:
        DigestMismatch, BadLayer, TooLarge, Unsupported: as run_ingest (layers/ingest.py).
        CacheFailure: the cache cannot take it, or the worker was killed. WorkStalled: the worker made no progress, and
        was ended.
    """
    progress = progress or Progress()
    if descriptor.size < SMALL_LAYER:
        ingest_here(
            chunks, descriptor=descriptor, diff_id=diff_id, store=store, progress=progress, report=report,
            names_only=names_only,
        )  # fmt: skip
    else:
        _ingest_in_process(
            chunks, descriptor, diff_id, store=store, progress=progress, report=report, niceness=niceness,
            stall_s=stall_s, names_only=names_only,
        )  # fmt: skip


def ingest_here(
    chunks: Iterable[bytes],
    *,
    descriptor: Descriptor,
    diff_id: Digest,
    store: LayerStore,
    progress: Progress,
    report: Callable[[Progress], None],
    names_only: bool = False,
) -> None:
    """Do what ingest_layer() does in the calling thread; *report* is called after each chunk and now and then."""
    with store.begin_names(descriptor.size) if names_only else store.begin_layer(descriptor.size) as writer:
        run_ingest(
            chunks, descriptor=descriptor, diff_id=diff_id, sink=writer, progress=progress, report=report,
            names_only=names_only,
        )  # fmt: skip
        store.publish(writer, diff_id)


def _ingest_in_process(
    chunks: Iterable[bytes],
    descriptor: Descriptor,
    diff_id: Digest,
    *,
    store: LayerStore,
    progress: Progress,
    report: Callable[[Progress], None],
    niceness: int,
    stall_s: float,
    names_only: bool,
) -> None:
    def hear(told: Told) -> None:
        progress.received = told.get("received", progress.received)
        progress.inflated = told.get("inflated", progress.inflated)
        progress.entries = told.get("entries", progress.entries)
        progress.effort = told.get("effort", progress.effort)
        progress.remark = told.get("remark", "")
        if told.get("exceeded"):
            store.budget.watch_excess(told["exceeded"])
        report(progress)

    argument = {
        "root": os.fspath(store.root),
        "boot": store.boot,
        "limits": store.budget.limits,
        "digest": str(descriptor.digest),
        "diff_id": str(diff_id),
        "size": descriptor.size,
        "media_type": descriptor.media_type,
        "niceness": niceness,
        "names_only": names_only,
    }
    worker = None
    if not names_only:
        store.budget.reserve(descriptor.size)  # may evict images that this process only remembers; the worker cannot
    try:
        with started(
            "regfs.images.workers.ingest_main", argument,
            what=str(descriptor.digest), has_input=True, stall_s=stall_s, on_told=hear,
        ) as worker:  # fmt: skip
            with suppress(BrokenPipeError):  # it stopped reading, and verdict() raises the reason
                for chunk in chunks:
                    worker.feed(chunk)
                    report(progress)
            worker.verdict()
    finally:
        if worker is not None and worker.was_killed:
            _sweep(store)


def _sweep(store: LayerStore) -> None:
    try:
        store.sweep()
    except CacheFailure as failure:
        log.warning("%s", failure)
