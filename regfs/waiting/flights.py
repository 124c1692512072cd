"""Each thing is computed once, however many ask for it at the same time.

A flight runs in a thread of its own, under a deadline of its own: the one who began it may be killed or run out of
time, and the others still get their answer. Nothing is remembered here: when a flight has landed, its result lives
where the computation put it (memory, disk), and an error is told to all who waited and then forgotten.
Used by images/ and registry/ (tokens, roots, credential helpers, host names). Thread rule: the lock guards the table of
flights, never a computation.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from regfs.errors import RegistryTimeout
from regfs.process.threads import start_thread
from regfs.waiting.deadline import Deadline, current, under

T = TypeVar("T")
# How a repository and what is asked for in it are written as one reference, by the first word of the key.
_JOINED_BY = {"tag": ":", "manifest": "@", "blob": "@", "small": "@"}


@dataclass(frozen=True, slots=True, eq=False)
class Landed(Generic[T]):
    """What came of a flight: a value or an error."""

    value: T | None
    error: BaseException | None

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            # A copy for each who waited: a raise adds the frames that it passes to its exception, so that one object
            # raised by a thousand threads would hold the frames of all of them.
            raise _copy_of(self.error)
        return self.value  # type: ignore[return-value]  # the flight's value, where there is no error


class Flights:
    """The computations that are under way, by key.

    *timeout_s* bounds the requests of one flight; work that moves much content is bounded by its progress instead, and
    so are those that wait for it (`Deadline.moved`).
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        # One table for results of all types: a key names what it computes, so its future has the type of its caller.
        self._flights: dict[Hashable, tuple[Future[Landed[Any]], Deadline]] = {}

    def run(
        self, key: Hashable, compute: Callable[[], T], *, streams: bool = False, parts: Collection[Hashable] = ()
    ) -> T:
        """Return what *compute* returns, joining the flight of *key* where one is under way.

        *streams*: the computation moves much content and ends by itself when it makes no progress; it has no deadline.
        *parts*: the keys of the flights that it waits for; their progress counts as its own.
        Waits as the caller's deadline allows (WouldBlock, Interrupted, RegistryTimeout); raises what *compute* raises.
        """
        try:
            flight = self.begin(key, compute, streams=streams)
            stalled = partial(self.stalled_since, (key, *parts)) if streams else None
            landed = current().wait_for(flight, stalled_since=stalled)
        except RegistryTimeout as timeout:
            # The computation goes on, so that only the thread that waited knows what for.
            raise RegistryTimeout(f"{_what(key)}: {timeout}") from timeout
        return landed.result()

    def begin(self, key: Hashable, compute: Callable[[], T], *, streams: bool = False) -> Future[Landed[T]]:
        """Return the flight of *key*, begun if none was under way, without waiting for it.

        Raises WouldBlock, Interrupted or RegistryTimeout where the caller could not wait anyway, and OutOfThreads.
        """
        current().remaining_s(0.0)
        with self._lock:
            future, deadline = self._flights.get(key, (None, None))
            if future is None or deadline is None:
                future, deadline = Future(), Deadline(None if streams else self._timeout_s)
                # Started under the lock: a flight in the table always has a thread that will land it.
                start_thread(self._fly, key, compute, future, deadline, name=f"flight {key}"[:60])
                self._flights[key] = future, deadline
        return future

    def stalled_since(self, keys: Collection[Hashable]) -> float:
        """Return when one of the flights of *keys* made progress last (monotonic seconds); infinity if all landed."""
        with self._lock:
            deadlines = [self._flights[key][1] for key in keys if key in self._flights]
        return max((deadline.stalled_since for deadline in deadlines), default=math.inf)

    def _fly(self, key: Hashable, compute: Callable[[], T], future: Future[Landed[T]], deadline: Deadline) -> None:
        landed = _outcome(compute, deadline)
        # Before the result is told: who asks from here on finds it where compute() put it.
        with self._lock:
            del self._flights[key]
        future.set_result(landed)
        # An error holds the frames that it came through, this one among them: a frame that holds the error makes a
        # circle, and some fifty objects would wait for the garbage collector at each failure.
        del landed, future


def _outcome(compute: Callable[[], T], deadline: Deadline) -> Landed[T]:
    try:
        with under(deadline):
            return Landed(compute(), None)
    except BaseException as error:  # whatever it is, it belongs to those who wait
        return Landed(None, error)


def _what(key: Hashable) -> str:
    """Return *key* for people, without the parts that are keys themselves: `tag ghcr.io/owner/app:1`."""
    if not isinstance(key, tuple):
        return str(key)
    kind, *rest = (str(part) for part in key if not isinstance(part, tuple))
    if kind in _JOINED_BY and len(rest) > 1:
        return f"{kind} {rest[0]}{_JOINED_BY[kind]}{rest[1]}"
    return " ".join([kind, *rest])


def _copy_of(error: BaseException) -> BaseException:
    try:
        own = copy.copy(error)
    except Exception:  # whatever a foreign class does when it is copied; then all share it
        return error
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)
