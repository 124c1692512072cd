"""Caches answers of registries in memory, each for a limited time, and none from before a refresh.

A refresh (SIGHUP, `regfs refresh`) means that a push may have changed every answer. A thread may get its answer before
a refresh and store it afterwards. So a caller reads `Refreshes.count` before it asks and passes it to keep(): an answer
from before the last refresh is returned as expired, and is not stored. All caches of a mount share one Refreshes, so
that one call ends every answer.

There are three kinds of answers: what exists, for the tag TTL that the user sets; what does not exist, for seconds, so
that a program that tries a name often costs one request; and old answers of a registry that does not respond now
(STALE_TTL_S). Used by the other modules of this package. Thread rule: any thread; the lock guards the table, and no
request is made under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from cachetools import LRUCache

from regfs.errors import BadConfiguration, RateLimited, RegistryTimeout, RegistryUnavailable
from regfs.process.clocks import since_boot_s

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

UNREACHABLE = (RegistryUnavailable, RegistryTimeout, RateLimited, BadConfiguration)
"""The errors for a registry that does not respond. They do not make an older answer wrong."""

STALE_TTL_S = 10.0
"""How many seconds an old answer is used before a registry that did not respond is asked again."""

MISSING_TTL_S = 10.0
"""How many seconds a tag or manifest that the registry lacks is not asked for again."""

MOST_ANSWERS = 16 * 1024
"""How many answers of one kind are cached (crawlers invent names); others come from the disk or registry again."""


class Refreshes:
    """Counts the refreshes of one mount. Each ends all answers to earlier requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def refresh(self) -> None:
        """End all answers."""
        with self._lock:
            self.count += 1


class Answer(NamedTuple, Generic[T]):
    """*value*, which holds until *expires_s* (seconds since the boot)."""

    value: T
    expires_s: float

    @property
    def valid_s(self) -> float:
        """The seconds until it expires."""
        return max(0.0, self.expires_s - since_boot_s())


class _Kept(NamedTuple, Generic[T]):
    answer: Answer[T]
    refreshes: int


class Remembered(Generic[K, T]):
    """Answers by their names, the *most* used last. None is valid for longer than *ttl_s* seconds."""

    def __init__(self, refreshes: Refreshes, *, ttl_s: float, most: int = MOST_ANSWERS) -> None:
        self._refreshes = refreshes
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        # A TLRUCache would take 2.8 us for a look-up; this one takes 0.3. Answers have their own expiry.
        self._kept: LRUCache[K, _Kept[T]] = LRUCache(most)

    def answer(self, name: K) -> Answer[T] | None:
        """Return the valid answer to *name*, None if there is none."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or self._holds(kept):
                return None if kept is None else kept.answer
            del self._kept[name]
        return None

    def get(self, name: K) -> T | None:
        """Return the value of the valid answer to *name*, None if there is none."""
        answer = self.answer(name)
        return None if answer is None else answer.value

    def __contains__(self, name: K) -> bool:
        return self.answer(name) is not None

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)

    def keep(self, name: K, value: T, *, for_s: float | None = None, asked_at: int | None = None) -> Answer[T]:
        """Store *value* as the answer to *name*, for *for_s* seconds if that is shorter than the TTL; return it.

        *asked_at* is `Refreshes.count` from before the request; without it the answer counts as current.
        """
        refreshes = self._refreshes.count
        if asked_at is not None and asked_at != refreshes:
            return Answer(value, 0.0)
        answer = Answer(value, since_boot_s() + (self._ttl_s if for_s is None else min(for_s, self._ttl_s)))
        with self._lock:
            self._kept[name] = _Kept(answer, refreshes)
        return answer

    def drop(self, name: K) -> T | None:
        """Drop the answer to *name*, and return it."""
        with self._lock:
            kept = self._kept.pop(name, None)
        return kept.answer.value if kept is not None and self._holds(kept) else None

    def drop_where(self, is_wrong: Callable[[K, T], bool]) -> None:
        """Drop the answers of which *is_wrong* returns true."""
        with self._lock:
            for name in [name for name, kept in self._kept.items() if is_wrong(name, kept.answer.value)]:
                self._kept.pop(name, None)

    def _holds(self, kept: _Kept[T]) -> bool:
        return kept.refreshes == self._refreshes.count and since_boot_s() < kept.answer.expires_s
