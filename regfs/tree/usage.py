"""What `df` shows of a mount: the cache, which is all that a mount takes of a disk.

Used by tree.py. Thread rule: any thread; no network, and no walk over the cache's directories.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regfs.store.budget import Standing
from regfs.waiting.deadline import current

# For how long the first question waits until it is known how much the cache holds.
_WAIT_S = 0.5


class Usage(NamedTuple):
    """The room in the cache, for statfs: bytes (of those that are free, the disk may not have all), and inodes."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    total_files: int
    free_files: int


def unknown_standing(_wait_s: float) -> Standing | None:
    """Return None: nothing is known of a limit."""
    return None


class CacheUsage:
    """The usage of the directory *cache*; *standing* tells how full it is, waiting so many seconds at most."""

    def __init__(self, cache: Path, standing: Callable[[float], Standing | None] = unknown_standing) -> None:
        self._cache = cache
        self._standing = standing

    def now(self) -> Usage:
        """Return the limit and what is used of it; the whole disk's where there is no limit, or it is not known yet.

        Raises WouldBlock the first time, where the thread may not wait.
        """
        try:
            room = os.statvfs(self._cache)
        except OSError:
            return Usage(0, 0, 0, 0, 0)
        size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
        standing = self._standing(0.0) or self._standing(current().remaining_s(_WAIT_S))
        if standing is None or not standing.limit:
            return Usage(size, free, free, room.f_files, room.f_favail)
        total = max(standing.limit, standing.used)
        return Usage(total, total - standing.used, standing.free, room.f_files, room.f_favail)
