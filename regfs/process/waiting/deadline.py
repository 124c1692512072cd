"""How long the current thread may wait, and how its wait is interrupted.

Every request that reaches regfs runs under a Deadline. The drivers set it; code that is about to wait (for a socket, or
for a flight that another thread started) asks it. Deadlines, interruption and immediate answers are this one mechanism:
a driver first runs a request with NON_BLOCKING, and where that raises WouldBlock, runs it again in its pool with a
deadline.

Thread rule: `current()` is per thread; a Deadline may be shared, and cancelled from any thread. Work that several
threads wait for (a flight) runs in a thread of its own under its own deadline, so that it survives the thread that
started it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from regfs.errors import Interrupted, RegistryTimeout, WouldBlock

T = TypeVar("T")

_LOOK_S = 0.05
_SIGNALS_S = 0.5
"""The longest wait of the main thread, which handles signals: one that comes as a wait begins does not end the wait."""


class Deadline:
    """Allows waits for *timeout_s* seconds from now (None: without an end), until it is cancelled.

    With `may_wait` False every wait raises WouldBlock. `stalled_since` (monotonic seconds) is when work that moves much
    content last made progress; threads that wait for it measure their own time from then. `active_since` (the same
    clock) is when the thread last stopped waiting, None while it waits: a deadline cannot end work that does not wait.
    """

    __slots__ = (
        "_changed",
        "active_since",
        "cancelled",
        "end_s",
        "is_users",
        "may_wait",
        "stalled_since",
        "timeout_s",
    )

    def __init__(self, timeout_s: float | None = None, *, may_wait: bool = True, is_users: bool = False) -> None:
        """*is_users*: the time is that of --timeout, which a message may name."""
        self.timeout_s = timeout_s
        self.is_users = is_users
        self.stalled_since = time.monotonic()
        self.active_since: float | None = self.stalled_since
        self.end_s = None if timeout_s is None else time.monotonic() + timeout_s
        self.may_wait = may_wait
        self.cancelled = False
        self._changed = threading.Condition(threading.Lock())

    @property
    def _option(self) -> str:
        return " (--timeout)" if self.is_users else ""

    def cancel(self) -> None:
        """End every present and future wait under this deadline with Interrupted."""
        with self._changed:
            self.cancelled = True
            self._changed.notify_all()

    def remaining_s(self, at_most_s: float) -> float:
        """Return how many seconds may still be waited, never more than *at_most_s*.

        Raises WouldBlock, Interrupted or RegistryTimeout where nothing may be waited any more.
        """
        if not self.may_wait:
            raise WouldBlock("the answer is not in memory or on disk")
        if self.cancelled:
            raise Interrupted("the request was interrupted")
        if self.end_s is None:
            return at_most_s
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise RegistryTimeout(f"no answer within {self.timeout_s:g} s{self._option}")
        return min(left_s, at_most_s)

    def sleep(self, seconds: float) -> None:
        """Wait *seconds*, ending early with Interrupted when cancelled; RegistryTimeout if the deadline comes first."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left_s := end - time.monotonic()) > 0:
                self._pause(self.remaining_s(left_s))

    def wait_for(self, future: Future[T], *, stalled_since: Callable[[], float] | None = None) -> T:
        """Return the future's result (or raise its error) as soon as it is there.

        The work behind the future goes on where this wait ends early. With *stalled_since*, for work that moves much
        content, the time counts from the last progress: a big layer on a slow line is no reason to fail.
        """
        if not future.done():
            self.remaining_s(0.0)
            future.add_done_callback(self._wake)
            with self._changed:
                while not future.done():
                    self._pause(self._wait_s(stalled_since))
        return future.result()

    def watch(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Yield *chunks*, and note progress whenever one is asked for and whenever it has come. For any thread."""
        try:
            while True:
                self.moved()
                chunk = next(chunks, None)
                self.moved()
                if chunk is None:
                    return
                yield chunk
        finally:
            if isinstance(chunks, Generator):
                chunks.close()

    def moved(self) -> None:
        """Note that the work under this deadline has made progress just now."""
        self.stalled_since = time.monotonic()

    def _wait_s(self, stalled_since: Callable[[], float] | None) -> float:
        if stalled_since is None or self.end_s is None or self.timeout_s is None:
            return self.remaining_s(3600.0)
        if self.cancelled:
            raise Interrupted("the request was interrupted")
        left_s = max(self.end_s, stalled_since() + self.timeout_s) - time.monotonic()
        if left_s <= 0:
            raise RegistryTimeout(f"no progress for {self.timeout_s:g} s{self._option}")
        return min(left_s, max(self.timeout_s, _LOOK_S))

    def _pause(self, seconds: float) -> None:
        """Wait up to *seconds* for a change; may return early. A driver overrides it to look for interrupts."""
        if threading.current_thread() is threading.main_thread():
            seconds = min(seconds, _SIGNALS_S)
        self.active_since = None
        try:
            self._changed.wait(seconds)
        finally:
            self.active_since = time.monotonic()

    def _wake(self, _future: Future[T]) -> None:
        with self._changed:
            self._changed.notify_all()


NON_BLOCKING = Deadline(may_wait=False)
_ENDLESS = Deadline()
_local = threading.local()


def current() -> Deadline:
    """Return the deadline of this thread. Where none was set (the command line), it is one without an end."""
    deadline: Deadline = getattr(_local, "deadline", _ENDLESS)
    return deadline


@contextmanager
def under(deadline: Deadline) -> Iterator[Deadline]:
    """Run the block under *deadline*; then restore the thread's former one."""
    before = current()
    _local.deadline = deadline
    try:
        yield deadline
    finally:
        _local.deadline = before
