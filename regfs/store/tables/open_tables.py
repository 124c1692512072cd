"""Bounds what the process has open and remembers: tables, data files, and directories of tables in memory.

A mount may show thousands of images, and the kernel remembers what it was shown. All files of the cache are immutable,
so one that was closed is opened again at its next use: `OpenTables` closes those that were not used lately as soon as
they have more than *descriptors* descriptors, may need more than *size* bytes of memory, or belong to more than *trees*
images.

    table       1 descriptor, and the pages that SQLite keeps of it     table.py
    data file   1 descriptor                                            data_files.py
    directories names and attributes as Python objects                  rootfs/directory_cache.py
    tree        an image's, or a layer's alone: it keeps its layers     tree/table_slots.py
                in the cache (in_use.py) while it is there

Second chance (CLOCK) decides which entry is closed: each use sets a flag, which is all that a look-up pays; an entry
whose flag is set is skipped once. An entry that a thread is using at that moment refuses to be closed.
Thread rule: any thread. The garbage collector may end an entry at any instant, in a thread that holds the lock too: it
leaves a note, and the next call takes the entry out. The lock is never held while an entry's lock is waited for.
"""

from __future__ import annotations

import resource
import threading
from collections import deque
from typing import NamedTuple, Protocol
from weakref import ref

# Thirteen tables belong to an image of twelve layers. A table takes 3 KiB of the interpreter and 60 KiB of SQLite
# beside its pages.
_DESCRIPTORS = 192
_SIZE = 32 << 20
_TREES = 64
# What is left of a small RLIMIT_NOFILE is for open files, connections and processes.
_SHARE = 4
_LEAST = 16


class Evictable(Protocol):
    """Something that can be closed and opens again at its next use."""

    recent: bool
    """Set by each use, taken back by OpenTables."""

    def close_if_idle(self) -> bool:
        """Close this entry unless a thread is using it now; return whether it is closed. Never waits."""


class _Cost(NamedTuple):
    descriptors: int = 0
    size: int = 0
    trees: int = 0

    def plus(self, other: _Cost, sign: int = 1) -> _Cost:
        return _Cost(*(mine + sign * its for mine, its in zip(self, other, strict=True)))

    def is_within(self, other: _Cost) -> bool:
        return all(mine <= its for mine, its in zip(self, other, strict=True))


class OpenTables:
    """The entries that are open, least recently used first."""

    def __init__(self, *, descriptors: int | None = None, size: int = _SIZE, trees: int = _TREES) -> None:
        """*descriptors*: by default 192, or a quarter of RLIMIT_NOFILE where that is less."""
        self._most = _Cost(_usual_descriptors() if descriptors is None else descriptors, size, trees)
        self._lock = threading.Lock()
        self._entries: dict[ref[Evictable], _Cost] = {}
        self._used = _Cost()
        self._ended: deque[ref[Evictable]] = deque()

    @property
    def descriptors(self) -> int:
        """How many descriptors the entries have open."""
        return self._now().descriptors

    @property
    def size(self) -> int:
        """How many bytes of memory the entries may take."""
        return self._now().size

    def add(self, entry: Evictable, *, descriptors: int = 0, size: int = 0, trees: int = 0) -> None:
        """Note that *entry* is open, or takes more now, and close others until all is within the bound."""
        entry.recent = True
        with self._lock:
            self._take_ended_out()
            reference = ref(entry, self._ended.append)
            self._forget(reference)
            self._entries[reference] = _Cost(descriptors, size, trees)
            self._used = self._used.plus(self._entries[reference])
            # Each entry may be skipped once; after that all that are left are in use.
            for _ in range(2 * len(self._entries)):
                if self._used.is_within(self._most):
                    return
                self._close_next(spared=entry)

    def close_unused(self) -> None:
        """Close the entries that were not used since the last call: for a daemon that gets no requests."""
        with self._lock:
            self._take_ended_out()
            for _ in range(len(self._entries)):
                self._close_next()

    def close_idle(self) -> int:
        """Close all that no thread is using now, to free descriptors, memory or room; return how many were closed."""
        closed = 0
        with self._lock:
            for reference in list(self._entries):
                entry = reference()
                if entry is not None and entry.close_if_idle():
                    self._forget(reference)
                    closed += 1
        return closed

    def _now(self) -> _Cost:
        with self._lock:
            self._take_ended_out()
            return self._used

    def _take_ended_out(self) -> None:
        while self._ended:
            self._forget(self._ended.popleft())

    def _close_next(self, *, spared: Evictable | None = None) -> None:
        reference = next(iter(self._entries), None)
        if reference is None:
            return
        entry, cost = reference(), self._entries[reference]
        self._forget(reference)
        if entry is None:
            return
        if entry is not spared and not entry.recent and entry.close_if_idle():
            return
        entry.recent = entry is spared
        self._entries[reference] = cost
        self._used = self._used.plus(cost)

    def _forget(self, reference: ref[Evictable]) -> None:
        cost = self._entries.pop(reference, None)
        if cost is not None:
            self._used = self._used.plus(cost, -1)


def _usual_descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else min(_DESCRIPTORS, max(_LEAST, soft // _SHARE))
