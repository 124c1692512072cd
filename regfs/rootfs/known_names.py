"""Directories of a merged table whose names are asked for one by one: kept in memory. Used by rootfs.py.

A question to SQLite walks two trees of pages, which takes 5 us where they are in the core's cache, and 12 where other
programs run in between; a dict takes a tenth of that. Whoever asks for an eighth of a directory's names will ask for
more, so then all of them are read, at about 1 us each. Thread rule: any thread; two may read the same directory, and
both get the same names.
"""

from __future__ import annotations

from collections.abc import Callable

from regfs.store.merged_index import MergedDirectory

Entry = tuple[int, bytes]
"""Node and attributes."""

_LEAST = 4
_SHARE = 8
_MOST_IN_ONE = 4096
# About 300 bytes each.
_MOST_NAMES = 1 << 14
_MOST_COUNTED = 4096


class KnownNames:
    """*directory* and *children* are a MergedIndex's."""

    def __init__(
        self,
        directory: Callable[[int], MergedDirectory | None],
        children: Callable[[int, int], list[tuple[bytes, int, bytes]]],
    ) -> None:
        self._directory = directory
        self._children = children
        self._asked: dict[int, int] = {}
        self._known: dict[int, dict[bytes, Entry]] = {}
        self._names = 0

    def of(self, directory: int) -> dict[bytes, Entry] | None:
        """Return all entries of *directory*, about which a question has come; None where it is better to ask for one.

        Raises what *directory* and *children* raise.
        """
        known = self._known.get(directory)
        return self._note_question(directory) if known is None else known

    def _note_question(self, directory: int) -> dict[bytes, Entry] | None:
        asked = self._asked[directory] = self._asked.get(directory, 0) + 1
        if asked < _LEAST:
            if len(self._asked) > _MOST_COUNTED:
                self._asked.clear()
            return None
        found = self._directory(directory)
        if found is None or found.size > min(asked * _SHARE, _MOST_IN_ONE):
            return None
        first, size = found.first, found.size
        if self._names + size > _MOST_NAMES:
            self._known.clear()
            self._names = 0
        known = {name: (node, attributes) for name, node, attributes in self._children(first, first + size)}
        self._known[directory] = known
        self._names += size
        return known
