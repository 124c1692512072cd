"""The limits that the user sets for a cache: its size, the free space on its disk, and the age of its content.

    size       bytes; by default 10 GiB or a tenth of the disk, whichever is less; 0: only what is in use
    min_free   bytes or a share of the disk that must stay free, whatever else fills it; by default a twentieth
    max_age_s  content not used for so many seconds is evicted; by default none is

Used by the budget (store/), which enforces them, and by app/config.py. Thread rule: values; pure but for the clock.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from regfs.process.clocks import unjumped_time_ns

MOST = 10 << 30
_SHARE_OF_DISK = 10
# The room that is assumed on a file system that does not report its size.
_UNTOLD_ROOM = 1 << 50
# Documents and merged tables may use four fifths of the space to keep free: without them an image cannot be shown.
_OF_SMALL = 5
# One in so many inodes stays free; users do not set a limit for inodes.
_INODES = 20


class MinFree(NamedTuple):
    """The space to keep free on the disk: bytes or a share (0 to 1) of it, whichever is more."""

    size: int = 0
    share: float = 0.0


TWENTIETH = MinFree(share=0.05)


class Limits(NamedTuple):
    """The limits of one cache. *size* None means the default, which depends on the disk."""

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
        """Files not used since this time, in nanoseconds since 1970, are too old; 0 if there is no age limit."""
        return 0 if math.isinf(self.max_age_s) else max(0, unjumped_time_ns() - int(self.max_age_s * 1e9))

    def most_bytes(self, disk: os.statvfs_result) -> int:
        """Return how many bytes the cache may hold; 0: as few as possible."""
        if self.size is not None:
            return self.size
        return min(MOST, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK) if disk.f_blocks else MOST

    def kept_free(self, disk: os.statvfs_result) -> int:
        """Return the bytes to keep free on *disk*."""
        return max(self.min_free.size, int(self.min_free.share * disk.f_blocks) * disk.f_frsize)

    def room(self, disk: os.statvfs_result, *, for_small: bool = False) -> int:
        """Return how many bytes may be written to *disk*; less than 0 if too few are free.

        *for_small*: for a document or a merged table.
        """
        part = _OF_SMALL if for_small else 1
        if disk.f_files and disk.f_favail < disk.f_files // (_INODES * part):
            return 0
        if not disk.f_blocks:  # a network file system that does not report its size; if it is full, writing fails
            return _UNTOLD_ROOM
        return disk.f_bavail * disk.f_frsize - self.kept_free(disk) // part


DEFAULT_LIMITS = Limits()
