"""What the user allows a cache: how much it may hold, what stays free on its disk, and for how long it keeps things.

    size       bytes; by default 10 GiB or a tenth of the disk, whichever is less; 0: what is in use alone
    min_free   bytes or a share of the disk that stay free, whatever fills it; by default a twentieth
    max_age_s  what was not used for so long is evicted; by default nothing is

Used by the budget, which keeps them, and by app/config.py. Thread rule: values; pure but for the clock.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST = 10 << 30
_SHARE_OF_DISK = 10
# A file system that tells no size may have this many bytes.
_UNTOLD_ROOM = 1 << 50
# Documents and merged tables may take four fifths of what stays free: without them nothing of an image can be shown.
_OF_SMALL = 5
# Inodes are not counted by users: a share of them stays free in any case.
_INODES = 20


class MinFree(NamedTuple):
    """What stays free on the disk: so many bytes, and such a share of it, whichever is more."""

    size: int = 0
    share: float = 0.0


TWENTIETH = MinFree(share=0.05)


class Limits(NamedTuple):
    """The limits of one cache. *size* None stands for the default, which depends on the disk."""

    size: int | None = None
    min_free: MinFree = TWENTIETH
    max_age_s: float = math.inf

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Limits:
        """Return the limits that were written as JSON: a list of the three fields."""
        size, min_free, max_age_s = fields
        return cls(size, MinFree(*min_free), max_age_s)

    @property
    def expired_ns(self) -> int:
        """The time, in nanoseconds since 1970, since when a file must have been used; 0 where none grows too old."""
        return 0 if math.isinf(self.max_age_s) else max(0, time.time_ns() - int(self.max_age_s * 1e9))

    def most_bytes(self, disk: os.statvfs_result) -> int:
        """Return how much the cache may hold; 0: as little as possible."""
        if self.size is not None:
            return self.size
        return min(MOST, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK) if disk.f_blocks else MOST

    def kept_free(self, disk: os.statvfs_result) -> int:
        """Return the bytes that stay free on *disk*."""
        return max(self.min_free.size, int(self.min_free.share * disk.f_blocks) * disk.f_frsize)

    def room(self, disk: os.statvfs_result, *, for_small: bool = False) -> int:
        """Return how many bytes may be written to *disk*; less than 0 where too little is free.

        *for_small*: what is to be written is a document or a merged table.
        """
        part = _OF_SMALL if for_small else 1
        if disk.f_files and disk.f_favail < disk.f_files // (_INODES * part):
            return 0
        if not disk.f_blocks:  # a network file system that does not tell its size; where it is full, writing fails
            return _UNTOLD_ROOM
        return disk.f_bavail * disk.f_frsize - self.kept_free(disk) // part


DEFAULT_LIMITS = Limits()
