"""The budget of a temporary cache, which holds names and no bytes of files: they could fill memory, or another disk.

Used by layer_store.py. Thread rule: any thread.
"""

from __future__ import annotations

from regfs.errors import CacheFull
from regfs.store.eviction.budget import Budget


class NamesBudget(Budget):
    """Takes tables and documents, and refuses all else with CacheFull."""

    def reserve(self, size: int) -> None:
        """Raise CacheFull."""
        raise CacheFull(f"a temporary cache takes no bytes of files ({size} bytes)")

    reserve_free = require = reserve
