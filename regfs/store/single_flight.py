"""Each thing is computed once, however many ask for it at the same time.

A flight runs in a thread of its own, under a patience of its own: the one who began it may be killed or run out of
time, and the others still get their answer. Nothing is remembered here: when a flight has landed, its result lives
where the computation put it (memory, disk), and an error is told to all who waited and then forgotten.
Used by the images room. Thread rule: the lock guards the table of flights, never a computation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from regfs.patience import Patience, current, patient

T = TypeVar("T")


class Flights:
    """The computations that are under way, by key.

    *timeout_s* bounds the requests of one flight; content that streams is bounded by its minimum rate instead.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        # One table for results of all types: a key names what it computes, so its future has the type of its caller.
        self._flights: dict[Hashable, Future[Any]] = {}

    def run(self, key: Hashable, compute: Callable[[], T], *, streams: bool = False) -> T:
        """Return what *compute* returns, joining the flight of *key* where one is under way.

        *streams*: the computation moves much content and ends by itself when it makes no progress; it has no deadline.
        Waits as the caller's patience allows (MustWait, Interrupted, RegistryTimeout); raises what *compute* raises.
        """
        current().remaining_s(0.0)
        with self._lock:
            future: Future[T] | None = self._flights.get(key)
            if future is None:
                future = self._flights[key] = Future()
                timeout_s = None if streams else self._timeout_s
                # Started under the lock: a flight in the table always has a thread that will land it.
                threading.Thread(
                    target=self._fly, args=(key, compute, future, timeout_s), name=f"flight {key}"[:60], daemon=True
                ).start()
        return current().wait_for(future, past_deadline=streams)

    def _fly(self, key: Hashable, compute: Callable[[], T], future: Future[T], timeout_s: float | None) -> None:
        try:
            with patient(Patience(timeout_s)):
                result = compute()
        except BaseException as error:  # whatever it is, it belongs to those who wait
            self._land(key)
            future.set_exception(error)
        else:
            self._land(key)
            future.set_result(result)

    def _land(self, key: Hashable) -> None:
        # Before the result is told: who asks from here on finds it where compute() put it.
        with self._lock:
            del self._flights[key]
