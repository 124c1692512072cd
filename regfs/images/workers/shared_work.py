"""SharedWork: work that is done once for all processes of a cache: ingests of layers, and merges of images.

A piece of work has a name. The thread that holds the name's lock (store/locks/work_locks.py) does the work, in one of a
few turns.
Other threads, of this process or another, watch its progress, and do it themselves if it ends without a result.
Deadlines are measured from the last progress: that of a flight (process/waiting/deadline.py), and those of threads
that wait for a turn.

Used by layer_ingests.py and merges.py. Thread rule: any thread; run() belongs to a flight, whose deadline it keeps
informed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from regfs.errors import WorkStalled
from regfs.process.waiting.deadline import Deadline, current
from regfs.store.locks.work_locks import Claim, Standing, WorkLocks

STALL_S = 300.0
"""How many seconds an ingest or a merge may make no progress, by default: as long as a request may wait."""
# Shorter than the wait of a request, so that a hanging holder in another process is replaced before requests time out.
_FOREIGN_STALL_S = 30.0
_LOOK_S = 0.5

Tell = Callable[[Standing], None]
"""A function that the work calls with its progress."""


class SharedWork:
    """Work of one kind: *at_once* pieces at a time, each of which must make progress within *stall_s* seconds."""

    def __init__(self, locks: WorkLocks, *, at_once: int, stall_s: float) -> None:
        self.stall_s = stall_s
        self._locks = locks
        self._turns = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._working: set[Deadline] = set()

    def run(
        self, name: str, work: Callable[[Tell], None], *, is_done: Callable[[], bool], follow: Tell | None = None
    ) -> bool:
        """Do *work* in this thread unless another thread or process does the work *name*; return whether this one did.

        *is_done* returns whether the result exists; *follow* is called with the progress of another process. Raises the
        errors of *work*, and WorkStalled if no turn comes because no other work makes progress.
        """
        while True:
            with self._turn(name), self._locks.claim(name) as claim:
                if claim is not None:
                    if is_done():
                        return False
                    work(_teller(claim, current()))
                    return True
            if self._follow(name, is_done, _teller(None, current(), follow)):
                return False

    def _follow(self, name: str, is_done: Callable[[], bool], told: Tell) -> bool:
        """Wait until the thread that does the work releases its lock, and return whether the work is done."""
        for standing in self._locks.standings(name, stalled_after_s=min(_FOREIGN_STALL_S, self.stall_s / 2)):
            told(standing)
            if is_done():
                break
        return is_done()

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        mine = current()
        began_s = time.monotonic()
        while not self._turns.acquire(timeout=_LOOK_S):
            with self._lock:
                latest_s = max((each.stalled_since for each in self._working), default=began_s)
            mine.stalled_since = max(mine.stalled_since, latest_s)
            if time.monotonic() - max(began_s, latest_s) > 1.5 * self.stall_s:
                raise WorkStalled(f"{name}: nothing else in the cache makes progress; does its disk answer?")
        mine.moved()
        with self._lock:
            self._working.add(mine)
        try:
            yield
        finally:
            with self._lock:
                self._working.discard(mine)
            self._turns.release()


def _teller(claim: Claim | None, deadline: Deadline, follow: Tell | None = None) -> Tell:
    """Return a function that records progress if it differs from the last record."""
    last: Standing | None = None

    def tell(standing: Standing) -> None:
        nonlocal last
        if standing == last:
            return
        last = standing
        deadline.moved()
        if claim is not None:
            claim.tell(standing)
        if follow is not None:
            follow(standing)

    return tell
