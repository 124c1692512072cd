"""Callbacks in threads of their own while the disk of the cache hangs, so that serving threads end at the deadline.

A thread that hangs in the disk cannot be ended. A serving thread would hold locks of libfuse meanwhile, and soon none
would be left. So while the disk hangs (hang_watch.py), a serving thread starts another one for each callback that may
need the disk, and answers ETIMEDOUT at the deadline. The other thread stays in the kernel until the disk answers; its
result is dropped. The number of such threads is limited; beyond it the answer is ETIMEDOUT at once.

Used by adapter.py and hang_watch.py. Thread rule: run() in the threads that serve; the rest in any.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from regfs.errors import Interrupted, RegistryTimeout, WorkStalled
from regfs.mount.fusepy.private_arguments import PrivateArguments
from regfs.mount.kernel.thread_pool import ThreadPool
from regfs.process.threads import start_thread
from regfs.process.waiting.deadline import Deadline, current, under

Method = Callable[..., int]

# Fewer than the threads that may serve (serving_threads.py): some are always left for what needs no disk.
MOST_FOR_DISK = 192
MOST_FOR_MEMORY = 16
_MAY_NEED_DISK = frozenset(
    ("access", "getattr", "getxattr", "listxattr", "open", "opendir", "read", "readdir", "readlink", "statfs", "unlink")
)
_CLOSING = frozenset(("release", "releasedir"))
# The daemon's own files: most of them are in memory.
_CONTROL = b"/.regfs"


class OwnThreads:
    """Runs callbacks, each for at most *timeout_s* seconds of local work; waits for the network are not counted."""

    def __init__(self, *, timeout_s: float, most_for_disk: int = MOST_FOR_DISK) -> None:
        self.is_needed = False
        """Whether the disk hangs, so that no serving thread may touch it."""
        self.undo: dict[str, Method] = {}
        """By the name of a method: what closes the result that came too late."""
        self._timeout_s = timeout_s
        self._free = {True: most_for_disk, False: MOST_FOR_MEMORY}
        self._lock = threading.Lock()
        self._abandoned = 0
        self._closing = ThreadPool(most=1)

    @property
    def abandoned(self) -> int:
        """How many threads still work on a request that is answered already."""
        return self._abandoned

    def run(self, method: Method, arguments: Sequence[Any], *, path: bytes) -> int:
        """Return what *method* returns for *arguments*, which are about *path*, and raise what it raises.

        Raises WorkStalled, OutOfThreads and Interrupted.
        """
        if method.__name__ in _CLOSING:
            self._close_later(method, PrivateArguments(arguments))
            return 0
        if method.__name__ not in _MAY_NEED_DISK:
            return method(*arguments)
        waiter = current()
        waiter.remaining_s(0.0)  # another thread receives from now on
        job = self._start(method, arguments, needs_disk=path != b"/" and not path.startswith(_CONTROL))
        try:
            waiter.wait_for(job.result, stalled_since=job.working_since)
        except (Interrupted, RegistryTimeout) as error:
            if job.abandon():
                if isinstance(error, Interrupted):
                    raise
                raise WorkStalled(f"the disk of the cache has not answered for {self._timeout_s:g} s") from None
        result = job.result.result()
        return result if job.arguments.commit() else -errno.ENOMEM

    def note_abandoned(self, change: int) -> None:
        """Add *change* to the number of threads that work on requests that are answered already."""
        with self._lock:
            self._abandoned += change

    def _start(self, method: Method, arguments: Sequence[Any], *, needs_disk: bool) -> _Job:
        self._take_place(needs_disk)
        try:
            job = _Job(self, method, PrivateArguments(arguments), Deadline(self._timeout_s, is_users=True))
            start_thread(job.run, lambda: self._give_place(needs_disk), name="regfs-disk")
        except BaseException:  # no thread was started: give its place back
            self._give_place(needs_disk)
            raise
        return job

    def _close_later(self, method: Method, arguments: PrivateArguments) -> None:
        """Run *method* after those before it: no program waits for a close."""

        def close() -> None:
            method(*arguments.given)

        self._closing.submit(close)

    def _take_place(self, needs_disk: bool) -> None:
        with self._lock:
            if not self._free[needs_disk]:
                raise WorkStalled("the disk of the cache does not answer, and too many requests wait for it already")
            self._free[needs_disk] -= 1

    def _give_place(self, needs_disk: bool) -> None:
        with self._lock:
            self._free[needs_disk] += 1


class _Job:
    """One callback in a thread of its own, under *deadline*."""

    def __init__(self, threads: OwnThreads, method: Method, arguments: PrivateArguments, deadline: Deadline) -> None:
        self.arguments = arguments
        self.result: Future[int] = Future()
        self._threads = threads
        self._method = method
        self._deadline = deadline
        self._lock = threading.Lock()
        self._is_abandoned = False

    def run(self, end: Callable[[], None]) -> None:
        """Run it, then *end*; drop the result if the request was abandoned."""
        result, failure = 0, None
        try:
            with under(self._deadline):
                result = self._method(*self.arguments.given)
        except BaseException as error:  # raised again in the thread that answers
            failure = error
        end()
        with self._lock:
            if not self._is_abandoned:
                if failure is None:
                    self.result.set_result(result)
                else:
                    self.result.set_exception(failure)
                return
        self._threads.note_abandoned(-1)
        undo = self._threads.undo.get(self._method.__name__)
        if failure is None and undo is not None:
            undo(None, self.arguments.given[-1])

    def working_since(self) -> float:
        """Return since when local work goes on; the present time while it waits under a deadline."""
        since = self._deadline.active_since
        return time.monotonic() if since is None else since

    def abandon(self) -> bool:
        """Drop the result when it comes; return False if it is there already."""
        with self._lock:
            if self.result.done():
                return False
            self._is_abandoned = True
        self._threads.note_abandoned(1)
        self._deadline.cancel()
        return True
