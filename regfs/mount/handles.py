"""File handles: the numbers by which the kernel names what is open. Used by both drivers.

No number is given out twice, so that a late request cannot reach another file. Thread rule: any thread may
call anything; single dict operations and `itertools.count` are atomic, so there is no lock.
"""

from __future__ import annotations

import itertools
from typing import Generic, TypeVar

from regfs.errors import BadHandle

T = TypeVar("T")


class Handles(Generic[T]):
    """What is open, by number. Numbers start at 1, so that a 0 in a request is always a mistake.

    An earlier daemon of the same mount has given out the numbers below *first*.
    """

    def __init__(self, first: int = 1) -> None:
        self._open: dict[int, T] = {}
        self._first = first
        self._numbers = itertools.count(first)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def add(self, opened: T) -> int:
        """Keep *opened* until `take`, and return its number."""
        number = next(self._numbers)
        self._open[number] = opened
        return number

    def is_of_earlier(self, number: int) -> bool:
        """Tell whether an earlier daemon has given out *number*, and this one does not know it."""
        return 0 < number < self._first and number not in self._open

    def restore(self, number: int, opened: T) -> None:
        """Keep *opened* as *number*, which an earlier daemon has given out."""
        self._open[number] = opened

    def get(self, number: int) -> T:
        """Return what is open as *number*. Raises BadHandle."""
        try:
            return self._open[number]
        except KeyError:
            raise BadHandle(f"handle {number} is not open") from None

    def take(self, number: int) -> T:
        """Return what was open as *number*, and forget the number. The caller closes it. Raises BadHandle."""
        try:
            return self._open.pop(number)
        except KeyError:
            raise BadHandle(f"handle {number} is not open") from None

    def closed(self, number: int) -> None:
        """Note that what had this number is closed, after `take`."""

    def take_all(self) -> list[T]:
        """Return all that is still open and forget it; for the end of a session."""
        opened = []
        while self._open:
            opened.append(self._open.popitem()[1])
        return opened
