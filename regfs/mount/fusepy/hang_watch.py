"""A watch on the threads that serve: if the cache's disk hangs below one, another takes its place.

A disk that hangs (a dead NFS server, a broken device) keeps a thread in one read(2); if it is the thread that receives,
no further request is received. So the watch checks every few seconds whether a thread is still at the same request. If
so, another thread receives, callbacks that may need the disk run in threads of their own until the disk answers
(own_threads.py), and the request that hangs is answered with ETIMEDOUT at its deadline.

Used by session.py. Thread rule: watch() in the thread that serves the session.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable

from regfs.errors import OutOfThreads, RegfsError, WorkStalled
from regfs.mount.fusepy.own_threads import OwnThreads
from regfs.mount.fusepy.serving_threads import ServingThread, ServingThreads

log = logging.getLogger(__name__)

_LOOK_S = 5.0


class HangWatch:
    """Watches *threads*. It answers a request that hangs after *timeout_s*, and calls *errors*."""

    def __init__(
        self,
        threads: ServingThreads,
        own_threads: OwnThreads,
        *,
        timeout_s: float,
        errors: Callable[[str, RegfsError], None],
    ) -> None:
        self._threads = threads
        self._own_threads = own_threads
        self._timeout_s = timeout_s
        self._errors = errors
        self._seen: dict[ServingThread, tuple[object, float]] = {}
        self._since = 0.0

    def watch(self) -> None:
        """Check every few seconds until the mount is gone."""
        while not self._threads.ended.wait(min(_LOOK_S, self._timeout_s)):
            try:
                self._look()
            except OutOfThreads as error:  # the others go on; the next check tries again
                log.warning("%s", error)

    def _look(self) -> None:
        now = time.monotonic()
        before, self._seen = self._seen, {}
        hanging: list[tuple[ServingThread, float]] = []
        for serving in self._threads.all():
            doing, active_since = serving.doing, serving.deadline.active_since
            if doing is None:
                continue
            seen, since = before.get(serving, (None, now))
            if doing is not seen:
                since = now
            self._seen[serving] = doing, since
            if doing is seen and active_since is not None:
                hanging.append((serving, now - max(since, active_since)))
        for serving, worked_s in hanging:
            # A thread that has waited does not receive, and may have much work now: it gets all of its time.
            if serving.has_turn or worked_s > self._timeout_s:
                serving.note_hang(self._seen[serving][0])
        is_hanging = any(serving.hangs for serving, _ in hanging) or self._own_threads.abandoned > 0
        was_hanging, self._own_threads.is_needed = self._own_threads.is_needed, is_hanging
        if is_hanging:
            self._act(hanging)
        self._tell(was_hanging, is_hanging, now)

    def _act(self, hanging: list[tuple[ServingThread, float]]) -> None:
        for serving, _ in hanging:
            self._threads.take_turn(serving)
        self._threads.ensure_receiver()
        answered = [serving.answer(errno.ETIMEDOUT) for serving, worked_s in hanging if worked_s > self._timeout_s]
        # After the answers: to write to the log may need the disk.
        for what in filter(None, answered):
            self._errors(what, WorkStalled(f"the disk of the cache has not answered for {self._timeout_s:g} s"))

    def _tell(self, was_hanging: bool, is_hanging: bool, now: float) -> None:
        if is_hanging and not was_hanging:
            self._since = now
            log.warning("the disk of the cache does not answer; other threads answer requests until it does")
        elif was_hanging and not is_hanging:
            log.warning("the disk of the cache answers again, after %.0f s", now - self._since)
