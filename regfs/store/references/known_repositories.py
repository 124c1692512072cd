"""Which repositories are known: visited, listed, or in the catalog of their registry.

So a registry that is down, or --offline, still shows what was seen, and one that cannot be listed shows what was
visited. A look-up here costs some ten microseconds however many names there are: a catalog may have 100,000
repositories, so it is never read as a whole to find one of them. reference_database.py has the tables.
Used by images, through references.py. Thread rule: any thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from regfs.store.references.reference_database import ReferenceDatabase

# The tables that repositories are known from.
_TABLES = ("tags", "lists", "catalog")
# The lint rule on SQL built from strings looks at these lines; only the constants above are put in.
_PATHS_IN = {
    table: f"SELECT path FROM {table} WHERE registry=? AND path>? AND path<? ORDER BY path LIMIT ?"  # noqa: S608
    for table in _TABLES
}
_ONE_IN = tuple(f"SELECT 1 FROM {table} WHERE registry=? AND path=? LIMIT 1" for table in _TABLES)  # noqa: S608
# Names in one transaction, and names read at once.
_PAGE = 500
_READ = 64
# Sorts after each path that begins with the text that it is added to; alone, after all paths.
_LAST = "\U0010ffff"


def left_s(checked: float | None, ttl_s: float) -> float:
    """Return for how many more seconds an answer of the time *checked* (seconds since 1970) is valid; 0 if it is not.

    An answer from the future, after the clock was set back, is not valid.
    """
    age_s = -1.0 if checked is None else time.time() - checked
    return max(0.0, ttl_s - age_s) if age_s >= 0 else 0.0


class KnownRepositories:
    """The repositories that *database* has rows of."""

    def __init__(self, database: ReferenceDatabase) -> None:
        self._database = database

    def catalog_checked(self, registry: str) -> float | None:
        """Return when the registry's repositories were last listed, in seconds since 1970; None where never."""
        rows = self._database.query("SELECT checked FROM catalogs WHERE registry=?", (registry,))
        return rows[0][0] if rows else None

    def keep_catalog(self, registry: str, names: Iterable[str]) -> None:
        """Remember the complete list of the registry's repositories: 5 us a name, in short transactions.

        Until it has returned, repositories of the previous list are known too.
        """
        rows = self._database.query("SELECT max(listing) FROM catalogs WHERE registry=?", (registry,))
        number, after = (rows[0][0] if rows and rows[0][0] else 0) + 1, ""
        ordered = sorted(set(names))
        for start in range(0, len(ordered), _PAGE):
            page = ordered[start : start + _PAGE]
            is_last = start + _PAGE >= len(ordered)
            if not self._keep_page(registry, page, number, after=after, before=_LAST if is_last else page[-1]):
                return
            after = page[-1]
        if not ordered:
            self._database.change("DELETE FROM catalog WHERE registry=? AND listing<?", (registry, number))
        self._database.change("INSERT OR REPLACE INTO catalogs VALUES (?, ?, ?)", (registry, number, time.time()))

    def components_below(self, registry: str, path: str) -> set[str]:
        """Return the next components of the known repositories below *path*, '' for all of the registry's.

        Reads a page of names for each component at most, and not all that is below it.
        """
        prefix = f"{path}/" if path else ""
        found: set[str] = set()
        for statement in _PATHS_IN.values():
            after = prefix
            while rows := self._database.query(statement, (registry, after, prefix + _LAST, _READ)):
                found.update(path[len(prefix) :].partition("/")[0] for (path,) in rows)
                if len(rows) < _READ:
                    break
                last = rows[-1][0]
                component, slash, _ = last[len(prefix) :].partition("/")
                after = f"{prefix}{component}/{_LAST}" if slash else last  # after all that is below that component
        return found

    def is_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is a repository that was visited or listed."""
        return any(self._database.query(statement, (registry, path)) for statement in _ONE_IN)

    def is_in_catalog(self, registry: str, path: str) -> bool:
        """Tell whether *path* was in the last complete list of the registry's repositories."""
        return bool(self._database.query("SELECT 1 FROM catalog WHERE registry=? AND path=?", (registry, path)))

    def leads_to_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is a known repository, or begins the path of one; with '' whether any is known."""
        return bool(path and self.is_known(registry, path)) or self.has_known_below(registry, path)

    def has_known_below(self, registry: str, path: str) -> bool:
        """Tell whether *path* begins the path of a longer one that was visited or listed."""
        prefix = f"{path}/" if path else ""
        return any(
            self._database.query(statement, (registry, prefix, prefix + _LAST, 1)) for statement in _PATHS_IN.values()
        )

    def last_visited(self, registry: str) -> str | None:
        """Return the repository of *registry* in which a tag was resolved last; None if none ever was."""
        rows = self._database.query("SELECT path FROM tags WHERE registry=? ORDER BY checked DESC LIMIT 1", (registry,))
        return rows[0][0] if rows else None

    def is_cache(self, registry: str, *, ttl_s: float) -> bool | None:
        """Tell whether *registry* is a pull-through cache; None where that is not known since *ttl_s* seconds."""
        rows = self._database.query("SELECT is_cache, checked FROM caches WHERE registry=?", (registry,))
        return bool(rows[0][0]) if rows and left_s(rows[0][1], ttl_s) > 0 else None

    def keep_is_cache(self, registry: str, *, is_cache: bool) -> None:
        """Remember whether *registry* is a pull-through cache."""
        self._database.change("INSERT OR REPLACE INTO caches VALUES (?, ?, ?)", (registry, is_cache, time.time()))

    def known_registries(self) -> list[str]:
        """Return the registries of which anything is known."""
        rows = self._database.query(
            "SELECT registry FROM tags UNION SELECT registry FROM lists UNION SELECT registry FROM catalogs", ()
        )
        return sorted(row[0] for row in rows)

    def _keep_page(self, registry: str, page: Sequence[str], number: int, *, after: str, before: str) -> bool:
        """Put *page* into listing *number*, remove others between *after* and *before*; tell whether that was done.

        Two daemons may keep a list at once: a row belongs to the later listing, and only earlier rows are removed.
        """
        return self._database.change_at_once(
            (
                "INSERT INTO catalog VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET listing=max(listing, excluded.listing)",
                [(registry, path, number) for path in page],
            ),
            (
                "DELETE FROM catalog WHERE registry=? AND path>? AND path<=? AND listing<?",
                [(registry, after, before, number)],
            ),
        )
