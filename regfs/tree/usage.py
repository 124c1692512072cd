"""The sizes that `df` shows for a mount: those of its cache.

Used by tree.py. Thread rule: any thread; no network, and no walk over the cache's directories.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regfs.process.waiting.deadline import current
from regfs.store.eviction.budget import Standing

# How many seconds the first call waits until the cache is measured.
_WAIT_S = 0.5


class Usage(NamedTuple):
    """The size of the cache for statfs(2), in bytes and inodes. Less may be available than is free, as on the disk."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    total_files: int
    free_files: int


def unknown_standing(_wait_s: float) -> Standing | None:
    """Return None: no limit is known."""
    return None


class CacheUsage:
    """The usage of the directory *cache*; *standing* returns how full it is, and waits up to *wait_s* seconds."""

    def __init__(self, cache: Path, standing: Callable[[float], Standing | None] = unknown_standing) -> None:
        self._cache = cache
        self._standing = standing

    def now(self) -> Usage:
        """Return limit and usage of the cache; those of the whole disk if no limit is set, or known yet.

        Raises WouldBlock at the first call if the thread may not wait.
        """
        try:
            disk = os.statvfs(self._cache)
        except OSError:
            return Usage(0, 0, 0, 0, 0)
        size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        standing = self._standing(0.0) or self._standing(current().remaining_s(_WAIT_S))
        if standing is None or not standing.limit:
            return Usage(size, free, free, disk.f_files, disk.f_favail)
        total = max(standing.limit, standing.used)
        return Usage(total, total - standing.used, standing.free, disk.f_files, disk.f_favail)
