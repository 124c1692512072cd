"""Each thing is computed once, however many threads ask for it at the same time.

A flight runs in a thread of its own, under a deadline of its own: the thread that started it may be interrupted or run
out of time, and the others still get their answer. No result is remembered here: the computation keeps it (in memory or
on the disk), and an error is raised in every thread that waited, and then forgotten.
Used by images/ and registry/ (tokens, roots, credential helpers, host names). Thread rule: the lock guards the table of
flights, never a computation.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from regfs.errors import OutOfThreads, RegistryTimeout
from regfs.process.threads import ReusedThreads
from regfs.process.waiting.deadline import Deadline, current, under

T = TypeVar("T")
# How a repository and what is asked for in it are written as one reference, by the first word of the key.
_JOINED_BY = {"tag": ":", "manifest": "@", "blob": "@", "small": "@"}


@dataclass(frozen=True, slots=True, eq=False)
class Landed(Generic[T]):
    """The result of a flight: a value or an error."""

    value: T | None
    error: BaseException | None

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            # A copy for each thread that waited: a raise adds the frames that it passes to its exception, so that one
            # object raised by a thousand threads would hold the frames of all of them.
            raise _copy_of(self.error)
        return self.value  # type: ignore[return-value]  # the flight's value, where there is no error


@dataclass(slots=True, eq=False)
class _Flight:
    """What callers wait for, and the deadlines of the threads that compute it; the first one with a value lands it."""

    future: Future[Landed[Any]]
    attempts: list[Deadline]
    is_landed: bool = False


class Flights:
    """The computations that are under way, by key.

    *timeout_s* bounds the requests of one flight; work that moves much content is bounded by its progress instead, and
    so are those that wait for it (`Deadline.moved`).

    With a --timeout that is shorter, a request that hangs would keep all callers from an answer until it ends. So a
    caller whose own --timeout is shorter than the flight has lasted starts a second attempt beside it. Each further
    attempt has to last twice as long first: attempts stay few, and a slow registry can still answer one.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._threads = ReusedThreads()
        # One table for results of all types: a key names what it computes, so its future has the type of its caller.
        self._flights: dict[Hashable, _Flight] = {}

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
            # The computation goes on, so only the thread that waited can say what it waited for.
            raise RegistryTimeout(f"{_what(key)}: {timeout}") from timeout
        return landed.result()

    def begin(self, key: Hashable, compute: Callable[[], T], *, streams: bool = False) -> Future[Landed[T]]:
        """Return the flight of *key*, begun if none was under way, without waiting for it.

        Raises WouldBlock, Interrupted or RegistryTimeout where the caller could not wait anyway, and OutOfThreads.
        """
        current().remaining_s(0.0)
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = _Flight(Future(), [])
                self._attempt(flight, key, compute, timeout_s=None if streams else self._timeout_s)
                self._flights[key] = flight
            elif not streams and _hangs(flight):
                with suppress(OutOfThreads):  # the attempts that there are go on
                    self._attempt(flight, key, compute, timeout_s=self._timeout_s)
        return flight.future

    def _attempt(self, flight: _Flight, key: Hashable, compute: Callable[[], T], *, timeout_s: float | None) -> None:
        """Start a thread that computes for *flight*. Raises OutOfThreads.

        Under the lock: a flight in the table always has a thread that will land it.
        """
        deadline = Deadline(timeout_s)
        self._threads.start(partial(self._fly, key, compute, flight, deadline), name=f"flight {key}"[:60])
        flight.attempts.append(deadline)

    def stalled_since(self, keys: Collection[Hashable]) -> float:
        """Return when one of the flights of *keys* made progress last (monotonic seconds); infinity if all landed."""
        with self._lock:
            deadlines = [each for key in keys if key in self._flights for each in self._flights[key].attempts]
        return max((deadline.stalled_since for deadline in deadlines), default=math.inf)

    def _fly(self, key: Hashable, compute: Callable[[], T], flight: _Flight, deadline: Deadline) -> None:
        landed = _outcome(compute, deadline)
        # Before the result is set: a thread that asks from now on finds it where compute() put it.
        with self._lock:
            flight.attempts.remove(deadline)
            others = list(flight.attempts)
            is_result = not flight.is_landed and (landed.error is None or not others)
            if is_result:
                flight.is_landed = True
                del self._flights[key]
        if is_result:
            flight.future.set_result(landed)
            for other in others:
                other.cancel()  # its answer is the older one, and nothing waits for it
        # An error holds the frames that it came through, this one among them: a frame that holds the error makes a
        # circle, and some fifty objects would wait for the garbage collector at each failure.
        del landed, flight


def _outcome(compute: Callable[[], T], deadline: Deadline) -> Landed[T]:
    try:
        with under(deadline):
            return Landed(compute(), None)
    except BaseException as error:  # any exception: the threads that wait must get it
        return Landed(None, error)


def _hangs(flight: _Flight) -> bool:
    """Tell whether the newest attempt has lasted so long that the calling thread should start another."""
    caller = current()
    if not caller.is_users or caller.timeout_s is None:
        return False
    return time.monotonic() - flight.attempts[-1].stalled_since > caller.timeout_s * 2.0 ** (len(flight.attempts) - 1)


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
    except Exception:  # a foreign class may refuse to be copied; then all threads share it
        return error
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)
