"""What tags pointed to in the past: each move that a registry's answer has shown, for all mounts of one cache.

    moves(id, registry, path, tag → digest, seen, was, was_seen)

A row says that the answer at *seen* was *digest* ('': there is no such tag), and the answer before it *was*, last at
*was_seen* ('' and 0: the tag was not asked for before). An answer equal to the last one makes no row, nor does a
remembered one that serves in place of an answer. An answer to a request that was sent before the last row makes none
either: another process may have a newer one. A tag keeps its last MOST_OF_ONE moves, a cache the last MOST.
Used by references.py. Thread rule: any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.model.names import RepositoryName
from regfs.store.references.reference_database import ReferenceDatabase, Value

MOST_OF_ONE = 256
MOST = 100_000

# If the last move is later than now by more than this, the clock was set back.
_SET_BACK_S = 3600.0

_LAST = """
SELECT digest, seen, was, was_seen FROM moves WHERE registry = :registry AND path = :path AND tag = :tag
ORDER BY id DESC LIMIT 1
"""
_ADD = """
INSERT INTO moves (registry, path, tag, digest, seen, was, was_seen)
SELECT :registry, :path, :tag, :digest, :seen, ifnull(last.digest, ''), :was_seen
FROM (SELECT 1) LEFT JOIN (
    SELECT digest, seen FROM moves WHERE registry = :registry AND path = :path AND tag = :tag
    ORDER BY id DESC LIMIT 1) AS last
WHERE ifnull(last.digest, '') != :digest
    AND (ifnull(last.seen, 0) <= :asked OR last.seen > :set_back)
"""
_OLDEST_OF_ONE = """
DELETE FROM moves WHERE id IN (
    SELECT id FROM moves WHERE registry = :registry AND path = :path AND tag = :tag ORDER BY id DESC
    LIMIT -1 OFFSET :most)
"""
_OLDEST = "DELETE FROM moves WHERE id <= (SELECT max(id) FROM moves) - ?"
_MOVES = "SELECT digest, seen, was, was_seen FROM moves WHERE registry = ? AND path = ? AND tag = ? ORDER BY id"
_AT = """
SELECT digest, seen, was, was_seen FROM moves WHERE registry = ? AND path = ? AND tag = ? AND seen <= ?
ORDER BY id DESC LIMIT 1
"""


class Move(NamedTuple):
    """A move that was seen at *seen*, from *was*, which was seen last at *was_seen*. Times in seconds since 1970.

    A digest is '' where there was no such tag; *was_seen* is 0 where nothing was known before.
    """

    digest: str
    seen: float
    was: str
    was_seen: float


class TagHistory:
    """The moves of the tags in *database*."""

    def __init__(self, database: ReferenceDatabase) -> None:
        self._database = database

    def observe(
        self, repository: RepositoryName, tag: str, digest: str, *, asked: float, seen: float, was_seen: float = 0.0
    ) -> None:
        """Note that *tag* points to *digest* ('': to nothing), by an answer at *seen* to a request sent at *asked*.

        *was_seen* is when the previous answer was seen last. All times are seconds since 1970.
        """
        values: dict[str, Value] = {"registry": repository.registry, "path": repository.path, "tag": tag}
        last = self._database.query(_LAST, values)
        if (last[0][0] if last else "") == digest:
            return
        move: dict[str, Value] = {"digest": digest, "asked": asked, "seen": seen, "was_seen": was_seen}
        move["set_back"] = seen + _SET_BACK_S
        self._database.change(_ADD, values | move)
        self._database.change(_OLDEST_OF_ONE, values | {"most": MOST_OF_ONE})
        self._database.change(_OLDEST, (MOST,))

    def moves(self, repository: RepositoryName, tag: str) -> list[Move]:
        """Return the moves of *tag*, the oldest first."""
        return [Move(*row) for row in self._database.query(_MOVES, (repository.registry, repository.path, tag))]

    def last_until(self, repository: RepositoryName, tag: str, until: float) -> Move | None:
        """Return the last move of *tag* that was seen at *until* or before; None where none is known."""
        rows = self._database.query(_AT, (repository.registry, repository.path, tag, until))
        return Move(*rows[0]) if rows else None

    def tags(self, registry: str, path: str) -> list[str]:
        """Return the tags of a repository of which a move is known."""
        rows = self._database.query("SELECT DISTINCT tag FROM moves WHERE registry = ? AND path = ?", (registry, path))
        return sorted(row[0] for row in rows)

    def repositories(self) -> list[tuple[str, str]]:
        """Return registry and path of the repositories that have such tags."""
        return [(row[0], row[1]) for row in self._database.query("SELECT DISTINCT registry, path FROM moves", ())]
