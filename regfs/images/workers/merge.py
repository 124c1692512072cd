"""Merges an image, in a worker if it is big: a merge keeps the interpreter busy from start to end.

Used by merges.py. Thread rule: any thread; a merge belongs to its caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from regfs.images.workers.forked_process import has_fork_server
from regfs.images.workers.shared_work import STALL_S
from regfs.images.workers.worker import started
from regfs.process.syscalls import give_memory_back
from regfs.rootfs.merge import Hidden, merge_files
from regfs.store.files.failures import cache_failure
from regfs.store.locks.file_locks import claimed

SMALL_INDEXES = 2 << 20
"""Smaller indexes (bytes; about ten thousand entries) are merged in the calling thread: that takes 30 ms of CPU."""
LARGE_INDEXES = 16 << 20
"""Smaller indexes (bytes; some 65,000 entries) are merged in the calling thread if no fork server runs: that takes 200
ms, mostly within SQLite, and starting a fork server takes longer."""


def merge_layers(
    layers: Sequence[Path],
    destination: Path,
    *,
    hidden: Hidden,
    reserve: Callable[[int], None],
    report: Callable[[int], None] = lambda _: None,
    stall_s: float = STALL_S,
) -> None:
    """Write the merged table of the layer indexes *layers* (base first) to *destination*, without their names *hidden*.

    Takes about 8 us for each entry. *reserve* is that of the budget. *report* is called, in any thread, with a number
    that grows while a worker works; a worker without progress for *stall_s* seconds is ended. Raises BadLayer if an
    unpacker would refuse the image; TooLarge; CacheFailure; WorkStalled.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        size = sum(path.stat().st_size for path in layers)
    except OSError as error:
        raise cache_failure(destination, error) from error
    reserve(size)  # the table takes as much room as the indexes at most: if layers share all their directories
    if size < (SMALL_INDEXES if has_fork_server() else LARGE_INDEXES):
        merge_files(layers, destination, hidden=hidden)
        if size >= SMALL_INDEXES:
            give_memory_back()  # of SQLite's caches
        return
    argument = {
        "layers": [os.fspath(path) for path in layers],
        "destination": os.fspath(destination),
        "hidden": {number: [os.fsdecode(name) for name in names] for number, names in hidden.items()},
    }
    worker = None
    try:
        with started(
            "regfs.images.workers.merge_main", argument,
            what=f"merging {destination.name}", has_input=False, stall_s=stall_s,
            on_told=lambda told: report(told.get("effort", 0)),
        ) as worker:  # fmt: skip
            worker.verdict()
    finally:
        if worker is not None and worker.was_killed:
            _remove_what_is_left(destination.parent)


def _remove_what_is_left(directory: Path) -> None:
    """Remove the temporary files of killed merges. Running merges hold a lock on theirs."""
    for path in directory.glob(".*"):
        with claimed(path) as is_left, suppress(OSError):
            if is_left:
                path.unlink()
