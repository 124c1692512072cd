"""How long the current thread may wait, and who may call it back.

Every request that reaches regfs runs under a Deadline: the drivers set it, and whatever would wait (the registry's
transport, a flight that somebody else started) asks it. That one mechanism gives deadlines, interruption, and the
rule that what memory or disk can answer is answered at once: a driver first asks with NON_BLOCKING, and on WouldBlock
hands the same request to its pool with a deadline.

Thread rule: `current()` is per thread; a Deadline itself may be shared and cancelled from any thread. Work that others
wait for too (a flight) runs in a thread of its own under its own deadline, so that it survives the one who began it.
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


class Deadline:
    """May wait until *deadline* (monotonic seconds; None: for ever), unless cancelled before.

    `may_wait` False means that any wait at all raises WouldBlock. `stalled_since` (monotonic seconds) is for work that
    moves much content: when it made progress last. Others that wait for it go by that. `active_since` is when the
    thread began to work by itself: such work sees no deadline. None while it waits here, and so sees one.
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
        """Let every present and future wait under this deadline end with Interrupted."""
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
        """Return the future's result (or raise its error) as soon as it is there; the future goes on if we give up.

        *stalled_since* is for work that moves much content: the deadline then counts from its last progress, for a big
        layer on a slow line is no reason to fail.
        """
        if not future.done():
            self.remaining_s(0.0)
            future.add_done_callback(self._wake)
            with self._changed:
                while not future.done():
                    self._pause(self._wait_s(stalled_since))
        return future.result()

    def watch(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Give *chunks*, from whatever thread; that one was asked for, and that it came, is progress."""
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
        """Wait up to *seconds* for a change; may return early. For a driver that must look for interrupts itself."""
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
    """Return the deadline of this thread: endless where nobody set one (the command line)."""
    deadline: Deadline = getattr(_local, "deadline", _ENDLESS)
    return deadline


@contextmanager
def under(deadline: Deadline) -> Iterator[Deadline]:
    """Run the block under *deadline*; the thread's former one comes back after it."""
    before = current()
    _local.deadline = deadline
    try:
        yield deadline
    finally:
        _local.deadline = before
