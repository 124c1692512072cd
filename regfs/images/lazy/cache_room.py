"""Decides how much of the cache may be filled with bytes of one layer that were not read yet.

Used by chunk_fetching.py and chunk_requests.py; made by partial_layers.py and plain_parts.py. Thread rule: any thread.
"""

from __future__ import annotations

import math

from regfs.images.lazy.chunk_read_ahead import MAX_AHEAD
from regfs.store.eviction.budget import Budget

# Of the limit: a layer that is larger is not fetched whole for a part that is read, and nothing larger ahead of a read.
_SHARE_OF_LAYER = 4
_SHARE_OF_AHEAD = 64


class CacheRoom:
    """The room of a cache for a layer of *size* bytes; without *budget* there is room for all."""

    def __init__(self, budget: Budget | None = None, size: float = 0) -> None:
        self._budget = budget
        self._size = size

    def has(self, size: int) -> bool:
        """Whether *size* bytes more fit without an eviction, as far as is known."""
        budget = self._budget
        standing = None if budget is None else budget.standing()
        if budget is None or standing is None:
            return True
        return size <= standing.free and standing.used + size <= budget.effective_limit()

    def require(self, size: int) -> None:
        """Raise CacheFull where the disk would not have room for *size* bytes after any eviction."""
        if size and self._budget is not None:
            self._budget.require(size)

    def fits_layer(self) -> bool:
        """Whether others may be evicted for the whole layer: if it leaves most of the cache to them."""
        return self._size * _SHARE_OF_LAYER <= self._limit()

    def most_ahead(self) -> int:
        """Return how many bytes to fetch ahead of a reader at most, so that they do not evict what is read."""
        limit = self._limit()
        return int(min(MAX_AHEAD, limit // _SHARE_OF_AHEAD)) if limit else MAX_AHEAD

    def _limit(self) -> float:
        return math.inf if self._budget is None else self._budget.effective_limit()
