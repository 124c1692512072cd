"""Finds what a tag of one repository pointed to at a time in the past, as far as regfs has seen it.

Used by tags.py. Thread rule: any thread; no network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from regfs.errors import NotFound
from regfs.model.dates import moment_text
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.store.references.references import References

# Answers seen before this delay are on the disk.
_PAST_S = 1.0


class PastTags:
    """The past of the tags of the repository *name*."""

    def __init__(self, name: RepositoryName, *, references: References, note: Callable[[str], None]) -> None:
        """*note* is called with a sentence that says why a time cannot be opened: ENOENT does not tell it."""
        self._name = name
        self._references = references
        self._note = note

    def observe(self, tag: str, digest: str, *, asked: float) -> None:
        """Note the registry's answer, "" if it has no such tag. To be called before the stored answer is replaced."""
        known = self._references.tag(self._name, tag)
        seen, was_seen = time.time(), 0.0 if known is None else known.checked
        if known is not None and str(known.digest) == digest and was_seen:
            # Stored by an older release, which did not record moves, and unchanged since.
            seen, was_seen = was_seen, 0.0
        self._references.history.observe(self._name, tag, digest, asked=asked, seen=seen, was_seen=was_seen)

    def is_known(self, tag: str) -> bool:
        """Tell whether *tag* was ever seen."""
        return self._references.history.last_until(self._name, tag, math.inf) is not None

    def at(self, tag: str, seconds: float) -> Digest:
        """Return what *tag* pointed to at a time, in seconds since 1970: what was last seen before it.

        Raises NotFound, and notes the reason, if that is not known.
        """
        try:
            return self._at(tag, seconds)
        except NotFound as reason:
            self._note(str(reason))
            raise

    def _at(self, tag: str, seconds: float) -> Digest:
        what = f"{self._name}:{tag}@{moment_text(seconds)}"
        if seconds > time.time() - _PAST_S:
            raise NotFound(f"{what}: that time has not passed yet")
        history = self._references.history
        move = history.last_until(self._name, tag, seconds)
        if move is None:
            first = next(iter(history.moves(self._name, tag)), None)
            since = "it was never looked up" if first is None else f"it was first seen at {moment_text(first.seen)}"
            raise NotFound(f"{what}: what it pointed to then is not known; {since}")
        if not move.digest:
            raise NotFound(f"{what}: there was no such tag then; it was gone by {moment_text(move.seen)}")
        return Digest.parse(move.digest)
