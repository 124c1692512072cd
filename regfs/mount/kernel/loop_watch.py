"""A watch on the thread that reads requests: if the cache's disk hangs below it, another thread takes its place.

The reading thread answers from memory and disk. A disk that hangs (a dead NFS server, a broken device) keeps it in one
read(2), and no further request would be read. So the watch checks every few seconds whether the thread is still at the
same request. If so it starts another reading thread, which does not touch the disk: it hands every request over to the
pool until the first thread comes back. The request that hangs is answered with ETIMEDOUT at its deadline.
Used by session.py. Thread rule: start() and watch() in the thread that serves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from regfs.errors import OutOfThreads
from regfs.mount.kernel.loop import RequestLoop
from regfs.mount.kernel.waiting_requests import WaitingRequests
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)

_LOOK_S = 5.0
# Normally only one thread hangs: its successors do not touch the disk.
_MOST_STUCK = 4


class _Stuck:
    """A loop that hangs, since when, and whether its request has been answered."""

    __slots__ = ("is_answered", "loop", "since")

    def __init__(self, loop: RequestLoop) -> None:
        self.loop = loop
        self.since = time.monotonic()
        self.is_answered = False


class LoopWatch:
    """Watches the loop that was started last. It answers a request that hangs after *timeout_s*."""

    def __init__(self, waiting: WaitingRequests, *, timeout_s: float) -> None:
        self.is_stuck = False
        """Whether a thread hangs, so that its successor must not touch the disk."""
        self._waiting = waiting
        self._timeout_s = timeout_s
        self._stuck: list[_Stuck] = []
        self._loop: RequestLoop | None = None
        self._run: Callable[[RequestLoop], None] | None = None
        self._seen: object = None

    @property
    def is_answering(self) -> bool:
        """Whether a loop is left that does not hang."""
        loop = self._loop
        return len(self._stuck) < _MOST_STUCK or loop is None or loop.doing is None or loop.doing is not self._seen

    def start(self, loop: RequestLoop, run: Callable[[RequestLoop], None]) -> None:
        """Start a thread that calls *run* with *loop*, and watch that loop from now on. Raises OutOfThreads."""
        start_thread(lambda: run(loop), name="regfs-requests")
        self._loop, self._run = loop, run

    def watch(self, ended: threading.Event) -> None:
        """Check every few seconds until *ended* is set."""
        while not ended.wait(min(_LOOK_S, self._timeout_s)):
            self._waiting.end_stuck()
            self._look_at_stuck()
            self._look_at_loop()

    def _look_at_loop(self) -> None:
        loop, run = self._loop, self._run
        if loop is None or run is None:
            return
        doing, seen, self._seen = loop.doing, self._seen, loop.doing
        if doing is None or doing is not seen or len(self._stuck) >= _MOST_STUCK:
            return
        self.is_stuck = True
        try:
            self.start(loop.another(), run)
        except OutOfThreads as error:
            log.warning("%s", error)
            self.is_stuck = bool(self._stuck)
            return
        loop.has_successor = True
        self._stuck.append(_Stuck(loop))
        log.warning("the disk of the cache does not answer; other threads answer requests until it does")

    def _look_at_stuck(self) -> None:
        for stuck in list(self._stuck):
            request = stuck.loop.doing
            if request is None:
                log.warning("the disk of the cache answers again, after %.0f s", time.monotonic() - stuck.since)
                self._stuck.remove(stuck)
            elif not stuck.is_answered and time.monotonic() - stuck.since > self._timeout_s:
                stuck.is_answered = True
                if isinstance(request, tuple):
                    opcode, unique, node, body = request
                    self._waiting.answer_stuck(unique, opcode, node, body)
        self.is_stuck = bool(self._stuck)
