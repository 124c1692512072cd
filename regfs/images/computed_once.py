"""Properties of immutable objects that are computed once, when they are first asked for. Used by image.py.

Thread rule: any thread; two threads that ask at once both compute the value, and neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, overload

Owner = TypeVar("Owner")
T = TypeVar("T")


class ComputedOnce(Generic[Owner, T]):
    """A property that is computed at its first use and then kept.

    Used in place of functools.cached_property, which before Python 3.12 holds one lock for all objects while it
    computes: a slow registry would block the readers of all images.
    """

    def __init__(self, compute: Callable[[Owner], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, _class: type[Owner], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, owner: None, _class: type[Owner]) -> ComputedOnce[Owner, T]: ...

    @overload
    def __get__(self, owner: Owner, _class: type[Owner]) -> T: ...

    def __get__(self, owner: Owner | None, _class: type[Owner]) -> T | ComputedOnce[Owner, T]:
        if owner is None:
            return self
        value = owner.__dict__[self._name] = self._compute(owner)
        return value
