"""ChunkArrivals: readers wait for single chunks of a request, and go on before the others of it are unpacked.

A flight that unpacks chunks takes those first that a reader waits for (`wanted`), and tells which it has kept (`came`).
Used by chunk_requests.py. Thread rule: any thread; the lock is held for moments.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")


class Arrival:
    """The wait of one reader for the chunks with *numbers*: *future* ends when all came, or by end()."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = set(numbers)
        self.future: Future[None] = Future()

    def end(self, _landing: object = None) -> None:
        """End the wait, once or again."""
        with suppress(InvalidStateError):
            self.future.set_result(None)


class ChunkArrivals:
    """The readers that wait for chunks of one layer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []

    @contextmanager
    def expected(self, numbers: Iterable[int]) -> Iterator[Arrival]:
        """Yield an Arrival of the chunks with *numbers*, which are wanted while the block runs."""
        arrival = Arrival(numbers)
        with self._lock:
            self._arrivals.append(arrival)
        try:
            yield arrival
        finally:
            with self._lock:
                self._arrivals.remove(arrival)

    def wanted(self) -> set[int]:
        """Return the numbers of the chunks that readers wait for."""
        with self._lock:
            return set[int]().union(*(arrival.numbers for arrival in self._arrivals))

    def came(self, numbers: Collection[int]) -> None:
        """Let the readers go on that wait for no other chunks."""
        with self._lock:
            for arrival in self._arrivals:
                arrival.numbers.difference_update(numbers)
            ended = [arrival for arrival in self._arrivals if not arrival.numbers]
        for arrival in ended:
            arrival.end()

    def wanted_first(self, members: Iterable[tuple[Sequence[int], T]]) -> Iterator[tuple[bool, T]]:
        """Yield *members*, which have the chunks of these numbers: first, at each moment, one that is wanted.

        With each comes whether it is.
        """
        left = dict(enumerate(members))
        places = {number: place for place, (numbers, _) in left.items() for number in numbers}
        while left:
            wanted = [place for number in self.wanted() if (place := places.get(number)) in left]
            place = min(wanted, default=next(iter(left)))
            yield bool(wanted), left.pop(place)[1]
