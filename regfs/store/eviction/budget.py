"""The budget of the cache: how much it may hold, and what goes when it is full.

A writer calls `reserve` first. The budget does not look at the disk each time: after a look, writers may take a quarter
of the room that was found. So the limit holds, to a megabyte or two, also while several ingests and daemons write at
once, each of which sees what the others wrote only at its next look. What was used longest ago is evicted first
(eviction.py).

What is in use by any process stays (uses.py), so that an image that is open never loses a file that it may still be
asked for. In use are the images that a process works with: those of which a file or directory is open, and those that
it visited last; together they may exceed the limit (excess.py). What the kernel merely remembers is not: else a limit
could not hold for a mount that visits thousands of images. What was evicted is fetched again when it is asked for.
A twentieth of the disk stays free, too, whatever fills it. Documents and merged tables may take four fifths of that,
for without them nothing of an image can be shown. Where the disk has not enough room whatever is evicted,
nothing is evicted: an image that is cached stays readable on a full disk.

Used by the other modules of the store, daemons and verbs. Thread rule: any thread; any number of processes.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regfs.errors import CacheFailure, CacheFull, OutOfThreads
from regfs.model.units import in_units
from regfs.process.threads import start_thread
from regfs.store.eviction.eviction import Unit, everything, evict
from regfs.store.eviction.excess import LATELY_S, Excess
from regfs.store.eviction.inventory import BLOBS, used_by
from regfs.store.files.failures import failures_of

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 10 << 30
# A file system that tells no size may have this many bytes.
_UNTOLD_ROOM = 1 << 50
# Of the disk, in bytes and in inodes.
_STAYS_FREE = 20
# The same, for documents and merged tables.
_STAYS_FREE_OF_SMALL = 100
# No writer looks more often than after this many bytes, or this part of the limit if that is less.
_STEP = 16 << 20
_STEPS = 64
# Once something must go, this much more goes, so that not every write finds the cache full again.
_SLACK = 256 << 20
# With the limit 0 all goes that is neither open nor used lately: a layer that was just fetched is not open yet.
_LATELY_NS = int(LATELY_S * 1e9)
# Beyond the limit, no writer looks more often than after this part of it.
_EXCESS_STEPS = 16
_LEAST_STEP = 1 << 20
# Manifests and configs are smaller, but for few; to evict them makes no room.
_DOCUMENT = 64 << 10
# How old a look may be that `df` and `regfs status` are answered by.
_FRESH_S = 10.0


class Standing(NamedTuple):
    """How full the cache is, in bytes: held, the limit (0: as little as possible), and what may still come."""

    used: int
    limit: int
    free: int


class Budget:
    """The budget of the cache at *root*. *limit* in bytes; 0: as little as possible; None: the default.

    *let_go* is called where all that is left is in use: it gives up what this process used lately. Where nothing can go
    all the same, the limit is exceeded (excess.py): `exceeded` says so then, and *note* hears it once.
    """

    def __init__(
        self,
        root: Path,
        *,
        limit: int | None = None,
        let_go: Callable[[], object] = lambda: None,
        note: Callable[[str], None] = log.warning,
        lately_s: float = LATELY_S,
    ) -> None:
        self.exceeded = ""
        self._note_text = note
        self._excess = Excess(self._shrink, lately_s=lately_s)
        self._root = root
        self._let_go = let_go
        self.limit = limit
        self._is_default = limit is None
        self._lock = threading.Lock()
        self._allowed = 0
        self._seen_bytes = 0
        self._seen_at = -math.inf  # monotonic seconds
        self._has_seen = threading.Event()
        self._looking = threading.Lock()

    def reserve(self, size: int) -> None:
        """Ask for room for *size* more bytes, evicting what has to go. Cheap, but for a look at the disk now and then.

        Raises CacheFull where the disk has not that much room, whatever goes: then nothing went. The message names the
        remedy.
        """
        self._reserve(size, stays_free=_STAYS_FREE)

    def reserve_table(self, size: int) -> None:
        """Do the same for a merged table, which may take room that stays free otherwise."""
        self._reserve(size, stays_free=_STAYS_FREE_OF_SMALL)

    def reserve_document(self, size: int) -> None:
        """Do the same for a document. Where the disk is full, no layer goes for it: a document is served unkept."""
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            if self._room_on_disk(_STAYS_FREE_OF_SMALL) < size:
                raise CacheFull(self._full(size, _STAYS_FREE_OF_SMALL))
        self._reserve(size, stays_free=_STAYS_FREE_OF_SMALL)

    def require(self, size: int) -> None:
        """Raise CacheFull where the disk has not room for *size* bytes, whatever would be evicted; evict nothing.

        For what is written in parts that are of no use alone: the layers of an image.
        """
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._require(size, _STAYS_FREE, counts_written=True)

    def _reserve(self, size: int, *, stays_free: int) -> None:
        with self._lock:
            self._seen_bytes += size
            self._allowed -= size
            if self._allowed < 0:
                self._allowed = 0
                self._allowed = self._look(size, stays_free) - size

    def trim(self, to: int | None = None) -> int:
        """Evict until at most *to* bytes (the limit) are held, and remove what crashes left; return the bytes freed.

        What is in use stays. Raises CacheFailure.
        """
        with failures_of(self._root):
            if not self._root.is_dir():
                return 0
            used = used_by(self._root)
            most = self._limit(used) if to is None else to
            return self._evict(used - most)

    def effective_limit(self) -> int:
        """Return the limit in bytes, the default worked out for this disk. Raises CacheFailure."""
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            return self._limit(used_by(self._root))

    def standing(self, *, wait_s: float = 0.0) -> Standing | None:
        """Return how full the cache was some seconds ago; None where no look at the disk has ended yet.

        Walks over no directory: where the last look is too old, a thread looks, for which the first call waits up to
        *wait_s*.
        """
        if time.monotonic() - self._seen_at > _FRESH_S:
            self._look_soon()
        if not self._has_seen.wait(wait_s):
            return None
        limit, used = self.limit or 0, self._seen_bytes
        try:
            room = self._room_on_disk()
        except OSError:
            return None
        return Standing(used, limit, max(0, min(room, limit - used) if limit else room))

    # Looking.

    def _look_soon(self) -> None:
        """Let a thread look at the disk, unless one does."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            start_thread(self._look_at_size, name="regfs-cache-size")
        except OutOfThreads:  # the last look has to do
            self._looking.release()

    def _look_at_size(self) -> None:
        try:
            with failures_of(self._root):
                used = used_by(self._root)
                self._limit(used)
                self._note(used)
        except CacheFailure as failure:
            log.debug("how full the cache is cannot be told: %s", failure)
        finally:
            self._looking.release()

    def _note(self, size: int) -> None:
        """Remember that the cache holds *size* bytes now."""
        self._seen_bytes, self._seen_at = size, time.monotonic()
        self._has_seen.set()

    def _require(self, size: int, stays_free: int, *, counts_written: bool = False) -> None:
        """Raise CacheFull where the disk has not room for *size* bytes, whatever would be evicted. Raises OSError.

        *counts_written*: what processes are writing now may be a part of *size*.
        """

        def could_fit() -> bool:
            room = self._room_on_disk(stays_free)
            if room >= size:
                return True
            could = evict(self._root, chosen=self._is_worth_evicting, only_say=True)
            return room + could.freed + (could.being_written if counts_written else 0) >= size

        if not could_fit():
            self._let_go()  # what is closed by that opens again when it is asked
            if not could_fit():
                raise CacheFull(self._full(size, stays_free))

    def _look(self, size: int, stays_free: int) -> int:
        """Return how much may be written before the next look: *size* or more. Raises CacheFailure."""
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._require(size, stays_free)
            used = used_by(self._root)
            room = self._room(used, stays_free)
            self._note(used + size)
            if self.limit == 0:
                self._evict(used, unused_for_ns=_LATELY_NS)
                room = self._room(used_by(self._root), stays_free)
            # Other writers may take what was freed for this one: then once more, as long as something goes.
            has_let_go = False
            while room < size:
                wanted = size - room + min(_SLACK, self._limit(used) // 16)
                if not self._evict(wanted, chosen=self._is_worth_evicting):
                    if has_let_go:
                        return self._exceed(size, stays_free)
                    self._let_go()
                    has_let_go = True
                room = self._room(used_by(self._root), stays_free)
        if stays_free != _STAYS_FREE:  # the next writer may be one that may not use that room
            return size
        step = _STEP if self.limit == 0 else max(room // 4, min(_STEP, self._limit(used) // _STEPS))
        return max(size, min(room, step))

    def _exceed(self, size: int, stays_free: int) -> int:
        """Return how much may be written beyond the limit, all being in use. Raises CacheFull if the disk is full."""
        room = self._room_on_disk(stays_free)
        if room < size:
            raise CacheFull(self._full(size, stays_free))
        self.exceeded = (
            f"{self._root}: {in_units(used_by(self._root) + size)} in use, limit {in_units(self.limit or 0)}; the cache"
            " shrinks to its limit when less is in use; --cache-size allows more"
        )
        self.watch_excess(self.exceeded)
        if stays_free != _STAYS_FREE:
            return size
        return max(size, min(room // 4, max(_LEAST_STEP, (self.limit or 0) // _EXCESS_STEPS)))

    def watch_excess(self, text: str) -> None:
        """Let the cache shrink to its limit once that can be; *text* tells why it is exceeded, here or by a worker."""
        if self._excess.watch():
            self._note_text(text)

    def _shrink(self) -> bool:
        self._let_go()
        with failures_of(self._root):
            used = used_by(self._root)
            excess = used - self._limit(used)
            holds = excess <= 0 or self._evict(excess, unused_for_ns=int(self._excess.lately_s * 1e9)) >= excess
        if holds:
            self.exceeded = ""
        return holds

    def _room(self, used: int, stays_free: int) -> int:
        by_disk = self._room_on_disk(stays_free)
        return by_disk if self.limit == 0 else min(by_disk, self._limit(used) - used)

    def _room_on_disk(self, stays_free: int = _STAYS_FREE) -> int:
        disk = os.statvfs(self._root)
        if disk.f_files and disk.f_favail < disk.f_files // stays_free:
            return 0
        if not disk.f_blocks:  # a network file system that does not tell its size; where it is full, writing fails
            return _UNTOLD_ROOM
        return (disk.f_bavail - disk.f_blocks // stays_free) * disk.f_frsize

    def _limit(self, used: int) -> int:
        if self._is_default and self.limit != DEFAULT_LIMIT:
            # What the cache has counts as free: else it would shrink at each start. The limit grows with the room on
            # the disk: one that was full at the start would else leave next to nothing for as long as the mount lives.
            disk = os.statvfs(self._root)
            room = disk.f_bavail * disk.f_frsize if disk.f_blocks else _UNTOLD_ROOM
            self.limit = max(self.limit or 1, min(DEFAULT_LIMIT, (room + used) // 2))
        return self.limit or 0

    def _full(self, size: int, stays_free: int) -> str:
        room = max(0, self._room_on_disk(stays_free))
        return (
            f"needs {in_units(size)}; the disk of {self._root} has {in_units(room)} to spare"
            f" ({100 // stays_free} % is kept free), also if the cache gives up what it can: make room there, or choose"
            " another disk with --cache-dir"
        )

    def _is_worth_evicting(self, unit: Unit) -> bool:
        """Tell whether *unit* is no document that was used lately: of an image that is just being unpacked, perhaps."""
        is_document = unit.size < _DOCUMENT and unit.guard.path.is_relative_to(self._root / BLOBS)
        return not (is_document and 0 <= time.time_ns() - unit.guard.used_ns < _LATELY_NS)

    def _evict(self, wanted: int, *, unused_for_ns: int = 0, chosen: Callable[[Unit], bool] = everything) -> int:
        """Free *wanted* bytes if that can be, and files without owner; return the bytes freed. Raises OSError."""
        evicted = evict(self._root, wanted=wanted, chosen=chosen, unused_for_ns=unused_for_ns)
        self._note(evicted.left)
        if evicted.freed:
            log.info("%d bytes of the cache were freed", evicted.freed)
        return evicted.freed
