"""Merges: merges the layers of an image into one table, once for all threads and processes of a cache.

Used by layer_cache.py. Thread rule: any thread; run() belongs to a flight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from regfs.images.workers.own_process import workers
from regfs.images.workers.shared_work import SharedWork, Tell
from regfs.model.digest import Digest
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.work_locks import Standing, WorkLocks
from regfs.telemetry.stats import Stats


class Merges:
    """The merges of one cache, whose merged tables are in *images*. One without progress for *stall_s* s is ended."""

    def __init__(
        self,
        store: LayerStore,
        images: Path,
        locks: WorkLocks,
        *,
        stats: Stats,
        stall_s: float,
        note: Callable[[str], None],
    ) -> None:
        """*note* is called with a sentence about a killed worker."""
        self._store = store
        self._images = images
        self._stats = stats
        self._note = note
        self._work = SharedWork(locks, at_once=workers(), stall_s=stall_s)

    def path(self, chain: Digest) -> Path:
        """Return the path of the merged table of *chain*, whether it exists or not."""
        return self._images / f"{chain.encoded}.merged"

    def run(self, chain: Digest, layers: Sequence[tuple[Digest, frozenset[bytes]]]) -> None:
        """Make the merged table of *chain*, unless it exists.

        *layers* are the store's keys of the layers, each with its hidden names; the caller keeps them from eviction.
        Raises BadLayer if an unpacker would refuse the image; TooLarge; CacheFailure; WorkStalled.
        """
        destination = self.path(chain)
        is_ours = self._work.run(
            f"image-{chain.encoded[:48]}",
            lambda tell: self._store.with_room(lambda: self._merge(destination, layers, tell)),
            is_done=destination.exists,
        )
        if is_ours:
            self._stats.count("images.merges")

    def _merge(self, destination: Path, layers: Sequence[tuple[Digest, frozenset[bytes]]], tell: Tell) -> None:
        # Imported here: a mount of known images never needs them.
        from regfs.images.workers.merge import merge_layers
        from regfs.images.workers.worker import twice_if_killed

        def merge_once() -> None:
            merge_layers(
                [self._store.index_path(stored_as) for stored_as, _ in layers],
                destination,
                hidden={number: hidden for number, (_, hidden) in enumerate(layers) if hidden},
                reserve=self._store.budget.reserve_table,
                report=lambda effort: tell(Standing(effort=effort)),
                stall_s=self._work.stall_s,
            )

        twice_if_killed(merge_once, self._note)
