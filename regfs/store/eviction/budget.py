"""The budget of the cache: how much it may hold, and when something is evicted.

A writer calls `reserve` first. The budget does not look at the disk each time: after a look, writers may take a quarter
of the room that was found. So the limit holds, to a megabyte or two, also while several ingests and daemons write at
once, each of which sees what the others wrote only at its next look. What was used longest ago is evicted first
(eviction.py).

What any process uses stays (in_use.py), so that an open image never loses a file that may still be read. In use are the
images of which a process has a file or directory open, and those that it visited last; together they may exceed the
limit (shrinking.py). What only the kernel remembers is not in use: otherwise the limit could not hold for a mount that
visits thousands of images. What was evicted is fetched again when it is next needed.
A part of the disk stays free, too, whatever fills it (model/cache_limits.py). Where evicting everything would not make
enough room, nothing is evicted: a cached image stays readable on a full disk.

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
from regfs.model.cache_limits import DEFAULT_LIMITS, Limits
from regfs.model.units import in_units
from regfs.process.threads import start_thread
from regfs.store.eviction.eviction import Unit, everything, evict
from regfs.store.eviction.inventory import BLOBS, used_by
from regfs.store.eviction.shrinking import LATELY_S, Excess
from regfs.store.files.failures import failures_of

log = logging.getLogger(__name__)

# A writer looks at the disk again after this many bytes at the earliest, or this part of the limit if that is less.
_STEP = 16 << 20
_STEPS = 64
# Once something must be evicted, this much more is, so that not every write finds the cache full again.
_SLACK = 256 << 20
# With the limit 0 all is evicted that is neither open nor was used lately: a layer just fetched is not open yet.
_LATELY_NS = int(LATELY_S * 1e9)
# Beyond the limit, a writer looks again after this part of the limit at the earliest.
_EXCESS_STEPS = 16
_LEAST_STEP = 1 << 20
# Nearly all manifests and configs are smaller; evicting them makes no room.
_DOCUMENT = 64 << 10
# Seconds that a look may be old from which `df` and `regfs status` are answered.
_FRESH_S = 10.0
_LOOK_WAIT_S = 2.0


class Standing(NamedTuple):
    """How full the cache is, in bytes: held, the limit (0: as little as possible), and what may still come.

    *min_free* bytes stay free on the disk; what was not used for *max_age_s* seconds is evicted.
    """

    used: int
    limit: int
    free: int
    min_free: int = 0
    max_age_s: float = math.inf


class Budget:
    """The budget of the cache at *root*.

    *let_go* is called where all that is left is in use: it closes what this process used lately. If nothing can be
    evicted even then, the limit is exceeded (shrinking.py): `exceeded` has the reason, and *note* gets it once.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: Limits = DEFAULT_LIMITS,
        let_go: Callable[[], object] = lambda: None,
        note: Callable[[str], None] = log.warning,
        lately_s: float = LATELY_S,
    ) -> None:
        self.exceeded = ""
        self._note_text = note
        self._excess = Excess(self._shrink, lately_s=lately_s)
        self._root = root
        self._let_go = let_go
        self.limits = limits
        self._lock = threading.Lock()
        self._allowed = 0
        self._seen_bytes = 0
        self._seen_at = -math.inf  # monotonic seconds
        self._has_seen = threading.Event()
        self._looking = threading.Lock()

    def reserve(self, size: int) -> None:
        """Make room for *size* more bytes, by eviction if needed. Cheap, but for a look at the disk now and then.

        Raises CacheFull, and evicts nothing, where the disk would not have that much room even then. The message names
        the remedy.
        """
        self._reserve(size)

    def reserve_table(self, size: int) -> None:
        """Make room as reserve() does for a merged table, which may take room that otherwise stays free."""
        self._reserve(size, for_small=True)

    def reserve_document(self, size: int) -> None:
        """Make room as reserve() does for a document; on a full disk raise CacheFull at once, and evict no layer."""
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            if self._room_on_disk(for_small=True) < size:
                raise CacheFull(self._full(size, for_small=True))
        self._reserve(size, for_small=True)

    def reserve_free(self, size: int) -> None:
        """Raise CacheFull where *size* bytes do not fit without eviction: for parts of what cannot fit whole."""
        standing = self.standing(wait_s=_LOOK_WAIT_S)
        if standing is None or standing.free < size:
            with failures_of(self._root):
                raise CacheFull(self._full(size, for_small=False))
        with self._lock:
            self._seen_bytes += size

    def require(self, size: int) -> None:
        """Raise CacheFull where the disk would not have room for *size* bytes after any eviction; evict nothing.

        For what is written in parts that are useless alone: the layers of an image.
        """
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._require(size, counts_written=True)

    def _reserve(self, size: int, *, for_small: bool = False) -> None:
        with self._lock:
            self._seen_bytes += size
            self._allowed -= size
            if self._allowed < 0:
                self._allowed = 0
                self._allowed = self._look(size, for_small=for_small) - size

    def trim(self, to: int | None = None) -> int:
        """Evict until at most *to* bytes (the limit) are held, and remove what crashes left; return the bytes freed.

        Evicts also what was not used for longer than the limits allow, and as much as must stay free on the disk. What
        is in use stays. Raises CacheFailure.
        """
        with failures_of(self._root):
            if not self._root.is_dir():
                return 0
            used = used_by(self._root)
            most = self._limit() if to is None else to
            return self._evict(used - most, expired_ns=self.limits.expired_ns) + self._evict_for_room()

    def keep(self) -> None:
        """Evict what is too old, and more where others have filled the disk. A thread calls this now and then.

        Walks over the cache where there is an age limit, or too little is free. Raises CacheFailure.
        """
        with failures_of(self._root):
            if self._root.is_dir():
                self._evict_old()
                self._evict_for_room()

    def effective_limit(self) -> int:
        """Return the limit in bytes; a default is computed for this disk. Raises CacheFailure."""
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            return self._limit()

    def standing(self, *, wait_s: float = 0.0) -> Standing | None:
        """Return how full the cache was some seconds ago; None where no look at the disk has ended yet.

        Does not walk over the cache itself: where the last look is too old, a thread does. The first call waits for
        that thread, up to *wait_s* seconds.
        """
        if time.monotonic() - self._seen_at > _FRESH_S:
            self._look_soon()
        if not self._has_seen.wait(wait_s):
            return None
        used = self._seen_bytes
        try:
            disk = os.statvfs(self._root)
        except OSError:
            return None
        room, limit = self.limits.room(disk), self.limits.most_bytes(disk)
        free = max(0, min(room, limit - used) if limit else room)
        return Standing(used, limit, free, self.limits.kept_free(disk), self.limits.max_age_s)

    def _evict_old(self) -> int:
        if not self.limits.expired_ns:
            return 0
        return self._evict(0, expired_ns=self.limits.expired_ns)

    def _evict_for_room(self) -> int:
        """Evict until enough of the disk is free, if eviction can achieve that at all."""
        missing = -self._room_on_disk()
        if missing <= 0 or evict(self._root, wanted=missing, with_chunks=True, only_say=True).freed < missing:
            return 0
        return self._evict(missing)

    # Looking.

    def _look_soon(self) -> None:
        """Start a thread that looks at the disk, unless one does already."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            start_thread(self._look_at_size, name="regfs-cache-size")
        except OutOfThreads:  # the last look has to do
            self._looking.release()

    def _look_at_size(self) -> None:
        try:
            with failures_of(self._root):
                self._note(used_by(self._root))
        except CacheFailure as failure:
            log.debug("the size of the cache is unknown: %s", failure)
        finally:
            self._looking.release()

    def _note(self, size: int) -> None:
        """Remember that the cache holds *size* bytes now."""
        self._seen_bytes, self._seen_at = size, time.monotonic()
        self._has_seen.set()

    def _require(self, size: int, *, for_small: bool = False, counts_written: bool = False) -> None:
        """Raise CacheFull where the disk would not have room for *size* bytes after any eviction. Raises OSError.

        *counts_written*: what processes are writing now may be a part of *size*.
        """

        def could_fit() -> bool:
            room = self._room_on_disk(for_small=for_small)
            if room >= size:
                return True
            could = evict(self._root, chosen=self._is_worth_evicting, with_chunks=True, only_say=True)
            return room + could.freed + (could.being_written if counts_written else 0) >= size

        if not could_fit():
            self._let_go()  # what that closes is opened again at its next use
            if not could_fit():
                raise CacheFull(self._full(size, for_small=for_small))

    def _look(self, size: int, *, for_small: bool) -> int:
        """Return how much may be written before the next look: *size* or more. Raises CacheFailure."""
        with failures_of(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._require(size, for_small=for_small)
            used = used_by(self._root)
            room = self._room(used, for_small=for_small)
            self._note(used + size)
            if self.limits.size == 0:
                self._evict(used, unused_for_ns=_LATELY_NS)
                room = self._room(used_by(self._root), for_small=for_small)
            # Other writers may take what was freed for this one: try again, as long as something can be evicted.
            has_let_go = False
            while room < size:
                wanted = size - room + min(_SLACK, self._limit() // 16)
                if not self._evict(wanted, chosen=self._is_worth_evicting):
                    if has_let_go:
                        return self._exceed(size, for_small=for_small)
                    self._let_go()
                    has_let_go = True
                room = self._room(used_by(self._root), for_small=for_small)
        if for_small:  # the next writer may be one that may not use that room
            return size
        step = _STEP if self.limits.size == 0 else max(room // 4, min(_STEP, self._limit() // _STEPS))
        return max(size, min(room, step))

    def _exceed(self, size: int, *, for_small: bool) -> int:
        """Return how much may be written beyond the limit, all being in use. Raises CacheFull if the disk is full."""
        room = self._room_on_disk(for_small=for_small)
        if room < size:
            raise CacheFull(self._full(size, for_small=for_small))
        self.watch_excess(
            f"{self._root}: {in_units(used_by(self._root) + size)} in use, limit {in_units(self._limit())}; the cache"
            " shrinks to its limit when less is in use; --cache-size allows more"
        )
        if for_small:
            return size
        return max(size, min(room // 4, max(_LEAST_STEP, self._limit() // _EXCESS_STEPS)))

    def watch_excess(self, text: str) -> None:
        """Let the cache shrink to its limit once that can be; *text* tells why it is exceeded, here or by a worker."""
        self.exceeded = text
        if self._excess.watch():
            self._note_text(text)

    def _shrink(self) -> bool:
        self._let_go()
        with failures_of(self._root):
            used = used_by(self._root)
            excess = used - self._limit()
            holds = excess <= 0 or self._evict(excess, unused_for_ns=int(self._excess.lately_s * 1e9)) >= excess
        if holds:
            self.exceeded = ""
        return holds

    def _room(self, used: int, *, for_small: bool) -> int:
        by_disk = self._room_on_disk(for_small=for_small)
        return by_disk if self.limits.size == 0 else min(by_disk, self._limit() - used)

    def _room_on_disk(self, *, for_small: bool = False) -> int:
        return self.limits.room(os.statvfs(self._root), for_small=for_small)

    def _limit(self) -> int:
        return self.limits.most_bytes(os.statvfs(self._root))

    def _full(self, size: int, *, for_small: bool) -> str:
        disk = os.statvfs(self._root)
        room = max(0, self.limits.room(disk, for_small=for_small))
        if room >= size:  # and nothing may be evicted for it
            return (
                f"needs {in_units(size)}; {self._root} may hold {in_units(self._limit())} and holds"
                f" {in_units(self._seen_bytes)}: --cache-size allows more"
            )
        return (
            f"needs {in_units(size)}; the disk of {self._root} has {in_units(room)} to spare"
            f" ({in_units(self.limits.kept_free(disk))} are kept free), even if the cache evicts what it can: make"
            " room there, choose another disk with --cache-dir, or keep less free with --min-free"
        )

    def _is_worth_evicting(self, unit: Unit) -> bool:
        """Tell whether *unit* may be evicted: a document used lately may belong to an image that is being unpacked."""
        is_document = unit.size < _DOCUMENT and unit.guard.path.is_relative_to(self._root / BLOBS)
        return not (is_document and 0 <= time.time_ns() - unit.guard.used_ns < _LATELY_NS)

    def _evict(
        self,
        wanted: float,
        *,
        unused_for_ns: int = 0,
        expired_ns: int = 0,
        chosen: Callable[[Unit], bool] = everything,
    ) -> int:
        """Free *wanted* bytes if possible, and files without an owner; return the bytes freed. Raises OSError."""
        evicted = evict(
            self._root, wanted=wanted, chosen=chosen, unused_for_ns=unused_for_ns, expired_ns=expired_ns,
            with_chunks=True,
        )  # fmt: skip
        self._note(evicted.left)
        if evicted.freed:
            log.info("%d bytes of the cache were freed", evicted.freed)
        return evicted.freed
