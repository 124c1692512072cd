"""The answers of one repository that are kept in memory, each for a time, and none from before a refresh.

A refresh (SIGHUP, `regfs refresh`) means that a push may have changed every answer. Some threads have read an answer
by then and keep it only afterwards. So an answer is kept together with `refreshes`, the count from before the question,
and an answer from before the last refresh is given back with no time left.
Used by repository.py. Thread rule: any thread; the lock guards all fields, and nothing is asked under it.
"""

from __future__ import annotations

import threading
import time

from cachetools import LRUCache, TTLCache

from regfs.errors import RegfsError
from regfs.images.answers import NAMES_KEPT, Listed, Resolved
from regfs.model.digest import Digest
from regfs.store.references import TagRecord

_NEGATIVE_TTL_S = 10.0


class Remembered:
    """What the tags of a repository point to, which tags there are, and what is missing."""

    def __init__(self, ttl_s: float) -> None:
        """No answer is kept for longer than *ttl_s* seconds."""
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._refreshes = 0
        self._listed: Listed | None = None
        self._resolved: LRUCache[str, Resolved] = LRUCache(NAMES_KEPT)
        self._missing: TTLCache[str, tuple[type[RegfsError], str]] = TTLCache(NAMES_KEPT, min(_NEGATIVE_TTL_S, ttl_s))
        self._lacking: TTLCache[Digest, bool] = TTLCache(NAMES_KEPT, _NEGATIVE_TTL_S)

    @property
    def refreshes(self) -> int:
        """How often refresh() was called."""
        return self._refreshes

    def refresh(self) -> None:
        """Drop every answer."""
        with self._lock:
            self._refreshes += 1
            self._listed = None
            for known in (self._resolved, self._missing, self._lacking):
                known.clear()

    # What a tag points to.

    def resolved(self, tag: str) -> Resolved | None:
        """Return what *tag* points to, None where no answer is fresh."""
        with self._lock:
            resolved = self._resolved.get(tag)
        return resolved if resolved is not None and resolved.valid_s > 0 else None

    def keep_resolved(self, tag: str, record: TagRecord, valid_s: float, refreshes: int) -> Resolved:
        """Keep *record* for *valid_s* seconds. *refreshes* is the count from before it was read or asked for."""
        expires = time.monotonic() + min(valid_s, self._ttl_s)
        with self._lock:
            if self._refreshes != refreshes:
                return Resolved(record.digest, record.media_type, record.size, 0.0)
            resolved = self._resolved[tag] = Resolved(record.digest, record.media_type, record.size, expires)
        return resolved

    def drop_resolved(self, tag: str) -> None:
        """Drop what *tag* points to."""
        with self._lock:
            self._resolved.pop(tag, None)

    # Which tags there are.

    def listed(self) -> Listed | None:
        """Return the tags, None where no listing is fresh."""
        listed = self._listed
        return listed if listed is not None and time.monotonic() < listed.expires else None

    def keep_listed(self, names: tuple[str, ...], valid_s: float, refreshes: int) -> Listed:
        """Keep all tags, *names*, as keep_resolved() keeps what one points to."""
        expires = time.monotonic() + min(valid_s, self._ttl_s)
        with self._lock:
            if self._refreshes != refreshes:
                return Listed(names, frozenset(names), 0.0)
            listed = self._listed = Listed(names, frozenset(names), expires)
        return listed

    def drop_listed(self) -> None:
        """Drop the listing."""
        self._listed = None

    # What is missing. It is asked for again after some seconds, so that a probe is one request.

    def note_missing(self, name: str, reason: RegfsError) -> None:
        """Keep that the registry has no *name*: a tag, a digest, or '' for the repository."""
        with self._lock:
            self._missing[name] = (type(reason), str(reason))

    def raise_missing(self, name: str) -> None:
        """Raise the error again that *name* was found missing with some seconds ago, NotFound in most cases."""
        with self._lock:
            missing = self._missing.get(name)
        if missing is not None:
            kind, reason = missing
            raise kind(reason)

    def note_lacking(self, digest: Digest) -> None:
        """Keep that the registry has no manifest *digest*, and drop every answer that a tag points to it."""
        with self._lock:
            self._lacking[digest] = True
            for tag in [tag for tag, resolved in self._resolved.items() if resolved.digest == digest]:
                del self._resolved[tag]

    def lacks(self, digest: Digest) -> bool:
        """Tell whether the registry had no manifest *digest* some seconds ago."""
        with self._lock:
            return digest in self._lacking
