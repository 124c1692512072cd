"""Threads for requests that wait for the network: started when they are needed, gone when they are not.

Used by waiting_requests.py and fusepy/own_threads.py. Not concurrent.futures: a ThreadPoolExecutor keeps each thread
that it ever started, so that one minute of a dead registry would leave 512 idle threads and their stacks for the life
of the mount. Any thread may call anything.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from regfs.errors import OutOfThreads
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)


class ThreadPool:
    """Runs jobs, each in a thread of its own, at most *most* at once; further jobs wait for a free thread."""

    def __init__(self, *, most: int = 512, idle_s: float = 10.0) -> None:
        self._most = most
        self._idle_s = idle_s
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._running = 0
        self._idle = 0

    @property
    def running(self) -> int:
        """Return the number of threads."""
        return self._running

    def submit(self, job: Callable[[], None]) -> None:
        """Run *job* soon in another thread. It must raise nothing.

        If no thread can be started the job waits for one that runs; if none runs, this raises OutOfThreads and the job
        is dropped.
        """
        with self._changed:
            self._jobs.append(job)
            # A thread that was notified but does not run yet counts as idle, and its job is still in the queue: so the
            # comparison is right whenever the lock is free.
            if len(self._jobs) <= self._idle or self._running >= self._most:
                self._changed.notify()
                return
            try:
                # Under the lock: the thread takes no job before it is counted, and none is lost between the two.
                start_thread(self._run, name="regfs-waiting")
            except OutOfThreads:
                if not self._running:
                    self._jobs.pop()
                    raise
            else:
                self._running += 1

    def _run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            try:
                job()
            except Exception:  # if the thread died here, `_running` would count it for ever
                log.exception("a request ended without an answer")

    def _next(self) -> Callable[[], None] | None:
        """Return the next job; None if none came for a while, so that this thread ends."""
        with self._changed:
            if not self._jobs:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._jobs), self._idle_s)
                self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._running -= 1
            return None
