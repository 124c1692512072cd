"""The processes that this one has started: the workers of ingests and merges."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children() -> set[int]:
    """Return the ids of the processes that this one has."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread of an earlier test that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found
