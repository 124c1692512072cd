"""What references pointed to when a registry was last asked: the memory that outlives a mount.

    tags(registry, path, tag → digest, media_type, size, checked)     one row a tag that was resolved
    lists(registry, path → names, checked)                            tags/list of a repository, its names as JSON
    catalog(registry, path → listing)                                 _catalog: a repository a row, and the number of
                                                                      the listing that it was last in
    catalogs(registry → listing, checked)                             the number of the last complete listing
    manifests(registry, path, digest → media_type)                    that this repository has shown this manifest
    created(digest → ns)                                              when the image was made, by its config
    caches(registry → is_cache, checked)                              whether it is a pull-through cache

A look-up that is answered from here costs some ten microseconds however many names there are: a catalog may have
100,000 repositories, so it is never read as a whole to find one of them.
`checked` is seconds since 1970. The content that a digest names is elsewhere (blobs.py); here are only names, so that
a registry that is down, or --offline, still shows what was last seen, and so that a registry which cannot be listed
shows what was visited. Losing the file loses nothing else; where it cannot be opened it lives in memory.
Used by the images room. Thread rule: one connection under one lock; statements are short.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from regfs.errors import InvalidName
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.store.small_database import open_database

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tags (
    registry TEXT, path TEXT, tag TEXT, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    checked REAL NOT NULL, PRIMARY KEY (registry, path, tag)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lists (
    registry TEXT, path TEXT, names TEXT NOT NULL, checked REAL NOT NULL, PRIMARY KEY (registry, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalog (
    registry TEXT, path TEXT, listing INTEGER NOT NULL, PRIMARY KEY (registry, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS catalogs (
    registry TEXT PRIMARY KEY, listing INTEGER NOT NULL, checked REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (
    registry TEXT, path TEXT, digest TEXT, media_type TEXT NOT NULL,
    PRIMARY KEY (registry, path, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS created (digest TEXT PRIMARY KEY, ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS caches (
    registry TEXT PRIMARY KEY, is_cache INTEGER NOT NULL, checked REAL NOT NULL) WITHOUT ROWID;
"""
# Where repositories are known from.
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
# Above each path that begins with what it is added to, and above all paths.
_LAST = "\U0010ffff"


class TagRecord(NamedTuple):
    """What a tag pointed to at *checked* (seconds since 1970)."""

    digest: Digest
    media_type: str
    size: int
    checked: float


class ListRecord(NamedTuple):
    """The names that a listing gave at *checked* (seconds since 1970)."""

    names: tuple[str, ...]
    checked: float


def left_s(checked: float | None, ttl_s: float) -> float:
    """Return for how many seconds more an answer of *checked* (seconds since 1970) holds; 0 where it does not.

    One that seems to come from the future, after the clock was set back, does not hold either.
    """
    age_s = -1.0 if checked is None else time.time() - checked
    return max(0.0, ttl_s - age_s) if age_s >= 0 else 0.0


class References:
    """The references that were looked up, in a small database at *path*; shared by all mounts of one cache."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._database = open_database(path, _SCHEMA, loss="references are remembered for this mount only")

    def tag(self, repository: RepositoryName, tag: str) -> TagRecord | None:
        """Return what *tag* pointed to when it was last asked for."""
        rows = self._query(
            "SELECT digest, media_type, size, checked FROM tags WHERE registry=? AND path=? AND tag=?",
            (repository.registry, repository.path, tag),
        )
        try:
            return next((TagRecord(Digest.parse(row[0]), row[1], row[2], row[3]) for row in rows), None)
        except InvalidName as error:  # a damaged file; of the registry's answers only right ones are kept
            log.warning("what is remembered of %s:%s is of no use: %s", repository, tag, error)
            return None

    def keep_tag(self, repository: RepositoryName, tag: str, record: TagRecord) -> None:
        """Remember what *tag* points to."""
        self._change(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)",
            (repository.registry, repository.path, tag, str(record.digest), record.media_type, record.size,
             record.checked),
        )  # fmt: skip

    def drop_tag(self, repository: RepositoryName, tag: str) -> None:
        """Forget a tag that the registry no longer has; the content that it named stays."""
        self._change(
            "DELETE FROM tags WHERE registry=? AND path=? AND tag=?", (repository.registry, repository.path, tag)
        )

    def known_tags(self, repository: RepositoryName) -> list[str]:
        """Return the tags of *repository* that were resolved at some time."""
        named = (repository.registry, repository.path)
        return [row[0] for row in self._query("SELECT tag FROM tags WHERE registry=? AND path=? ORDER BY tag", named)]

    def listing(self, registry: str, path: str) -> ListRecord | None:
        """Return the last listing of a repository's tags."""
        rows = self._query("SELECT names, checked FROM lists WHERE registry=? AND path=?", (registry, path))
        try:
            return next((ListRecord(tuple(json.loads(row[0])), row[1]) for row in rows), None)
        except (ValueError, TypeError) as error:
            log.warning("the remembered listing of %s/%s is of no use: %s", registry, path, error)
            return None

    def keep_listing(self, registry: str, path: str, names: Sequence[str]) -> None:
        """Remember a complete listing."""
        self._change(
            "INSERT OR REPLACE INTO lists VALUES (?, ?, ?, ?)", (registry, path, json.dumps(names), time.time())
        )

    def expire_listing(self, registry: str, path: str) -> None:
        """Let the listing be older than any limit: it is asked for again, and serves where that fails."""
        self._change("UPDATE lists SET checked=0 WHERE registry=? AND path=?", (registry, path))

    def expire_tags(self, repository: RepositoryName, digest: Digest) -> None:
        """Do the same to the tags that point to *digest*."""
        self._change(
            "UPDATE tags SET checked=0 WHERE registry=? AND path=? AND digest=?",
            (repository.registry, repository.path, str(digest)),
        )

    def tag_pointing_to(self, repository: RepositoryName, digest: Digest, *, since: float) -> str | None:
        """Return a tag that pointed to *digest* at *since* (seconds since 1970) or later; None where there is none."""
        rows = self._query(
            "SELECT tag FROM tags WHERE registry=? AND path=? AND digest=? AND checked>=?"
            " ORDER BY checked DESC LIMIT 1",
            (repository.registry, repository.path, str(digest), since),
        )
        return rows[0][0] if rows else None

    def expire_all(self) -> None:
        """Do the same to all tags, listings and catalogs."""
        for statement in ("UPDATE tags SET checked=0", "UPDATE lists SET checked=0", "UPDATE catalogs SET checked=0"):
            self._change(statement, ())

    def drop_listing(self, registry: str, path: str) -> None:
        """Forget the listing of a repository that is gone."""
        self._change("DELETE FROM lists WHERE registry=? AND path=?", (registry, path))

    def manifest_type(self, repository: RepositoryName, digest: Digest) -> str:
        """Return the media type under which *repository* has shown the manifest *digest*; '' where it never has."""
        rows = self._query(
            "SELECT media_type FROM manifests WHERE registry=? AND path=? AND digest=?",
            (repository.registry, repository.path, str(digest)),
        )
        return rows[0][0] if rows else ""

    def keep_manifest(self, repository: RepositoryName, digest: Digest, media_type: str) -> None:
        """Remember that *repository* has the manifest *digest*."""
        self._change(
            "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?)",
            (repository.registry, repository.path, str(digest), media_type),
        )

    def created(self, digest: Digest) -> int:
        """Return when the image *digest* was made, in nanoseconds since 1970; 0 where it is not known."""
        return _whole(self._query("SELECT ns FROM created WHERE digest=?", (str(digest),)))

    def tag_created(self, repository: RepositoryName, tag: str) -> int:
        """Return the same for the image that *tag* pointed to last."""
        rows = self._query(
            "SELECT ns FROM tags JOIN created USING (digest) WHERE registry=? AND path=? AND tag=?",
            (repository.registry, repository.path, tag),
        )
        return _whole(rows)

    def keep_created(self, digests: Iterable[Digest], created_ns: int) -> None:
        """Remember when the image that *digests* name was made; what a digest names never changes."""
        for digest in digests:
            self._change("INSERT OR IGNORE INTO created VALUES (?, ?)", (str(digest), created_ns))

    def has_manifests(self, repository: RepositoryName) -> bool:
        """Tell whether *repository* has ever shown a manifest."""
        found = self._query(
            "SELECT 1 FROM manifests WHERE registry=? AND path=? LIMIT 1", (repository.registry, repository.path)
        )
        return bool(found)

    def digests(self, repository: RepositoryName) -> list[str]:
        """Return the digests that the tags of *repository* pointed to, and those of the manifests that it has shown."""
        rows = self._query(
            "SELECT digest FROM manifests WHERE registry=? AND path=?"
            " UNION SELECT digest FROM tags WHERE registry=? AND path=?",
            (repository.registry, repository.path) * 2,
        )
        return [row[0] for row in rows]

    def catalog(self, registry: str) -> ListRecord | None:
        """Return when the registry's repositories were last listed; the names themselves are not read."""
        rows = self._query("SELECT checked FROM catalogs WHERE registry=?", (registry,))
        return ListRecord((), rows[0][0]) if rows else None

    def keep_catalog(self, registry: str, names: Iterable[str]) -> None:
        """Remember the complete list of the registry's repositories: 5 us a name, in steps that let others look up.

        Until it is done, repositories of the list before it are known too.
        """
        rows = self._query("SELECT max(listing) FROM catalogs WHERE registry=?", (registry,))
        number, after = (rows[0][0] if rows and rows[0][0] else 0) + 1, ""
        ordered = sorted(set(names))
        for start in range(0, len(ordered), _PAGE):
            page = ordered[start : start + _PAGE]
            is_last = start + _PAGE >= len(ordered)
            if not self._keep_page(registry, page, number, after=after, before=_LAST if is_last else page[-1]):
                return
            after = page[-1]
        if not ordered:
            self._change("DELETE FROM catalog WHERE registry=? AND listing<?", (registry, number))
        self._change("INSERT OR REPLACE INTO catalogs VALUES (?, ?, ?)", (registry, number, time.time()))

    def components_below(self, registry: str, path: str) -> set[str]:
        """Return the next components of the known repositories below *path*, '' for all of the registry's.

        Reads a page of names for each component at most, and not all that is below it.
        """
        prefix = f"{path}/" if path else ""
        found: set[str] = set()
        for statement in _PATHS_IN.values():
            after = prefix
            while rows := self._query(statement, (registry, after, prefix + _LAST, _READ)):
                found.update(path[len(prefix) :].partition("/")[0] for (path,) in rows)
                if len(rows) < _READ:
                    break
                last = rows[-1][0]
                component, slash, _ = last[len(prefix) :].partition("/")
                after = f"{prefix}{component}/{_LAST}" if slash else last  # behind all that is below that component
        return found

    def is_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is a repository that was visited or listed."""
        return any(self._query(statement, (registry, path)) for statement in _ONE_IN)

    def is_in_catalog(self, registry: str, path: str) -> bool:
        """Tell whether *path* was in the last complete list of the registry's repositories."""
        return bool(self._query("SELECT 1 FROM catalog WHERE registry=? AND path=?", (registry, path)))

    def leads_to_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is such a repository, or begins the path of one; with '' whether there is any."""
        return bool(path and self.is_known(registry, path)) or self.has_known_below(registry, path)

    def has_known_below(self, registry: str, path: str) -> bool:
        """Tell whether *path* begins the path of a longer one that was visited or listed."""
        prefix = f"{path}/" if path else ""
        return any(self._query(statement, (registry, prefix, prefix + _LAST, 1)) for statement in _PATHS_IN.values())

    def last_visit(self, repository: RepositoryName) -> float | None:
        """Return when a tag of *repository* was resolved last (seconds since 1970); None where it never was."""
        rows = self._query(
            "SELECT max(checked) FROM tags WHERE registry=? AND path=?", (repository.registry, repository.path)
        )
        return rows[0][0] if rows and isinstance(rows[0][0], float) else None

    def last_visited(self, registry: str) -> str | None:
        """Return the repository of *registry* in which a tag was resolved last; None where that never was."""
        rows = self._query("SELECT path FROM tags WHERE registry=? ORDER BY checked DESC LIMIT 1", (registry,))
        return rows[0][0] if rows else None

    def is_cache(self, registry: str, *, ttl_s: float) -> bool | None:
        """Tell whether *registry* is a pull-through cache; None where that is not known since *ttl_s* seconds."""
        rows = self._query("SELECT is_cache, checked FROM caches WHERE registry=?", (registry,))
        return bool(rows[0][0]) if rows and left_s(rows[0][1], ttl_s) > 0 else None

    def keep_is_cache(self, registry: str, *, is_cache: bool) -> None:
        """Remember whether *registry* is a pull-through cache."""
        self._change("INSERT OR REPLACE INTO caches VALUES (?, ?, ?)", (registry, is_cache, time.time()))

    def known_registries(self) -> list[str]:
        """Return the registries of which anything is known."""
        rows = self._query(
            "SELECT registry FROM tags UNION SELECT registry FROM lists UNION SELECT registry FROM catalogs", ()
        )
        return sorted(row[0] for row in rows)

    def _keep_page(self, registry: str, page: Sequence[str], number: int, *, after: str, before: str) -> bool:
        """Put *page* into listing *number* and remove what else is between *after* and *before*; tell whether it did.

        Two daemons may keep a list at once: a row belongs to the later listing, and only earlier ones are removed.
        """
        with self._lock:
            try:
                with self._transaction():
                    self._database.executemany(
                        "INSERT INTO catalog VALUES (?, ?, ?)"
                        " ON CONFLICT DO UPDATE SET listing=max(listing, excluded.listing)",
                        ((registry, path, number) for path in page),
                    )
                    self._database.execute(
                        "DELETE FROM catalog WHERE registry=? AND path>? AND path<=? AND listing<?",
                        (registry, after, before, number),
                    )
            except sqlite3.DatabaseError as error:
                self._tell("the memory of references cannot be written", error)
                return False
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # whatever it is, an open transaction would lock the file for all other processes
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _query(self, statement: str, arguments: tuple[str | int | float, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(statement, arguments).fetchall()
            except sqlite3.DatabaseError as error:
                self._tell("the memory of references cannot be read", error)
                return []

    def _change(self, statement: str, arguments: tuple[str | int | float, ...]) -> None:
        with self._lock:
            try:
                self._database.execute(statement, arguments)
            except sqlite3.DatabaseError as error:
                self._tell("the memory of references cannot be written", error)

    def _tell(self, what: str, error: sqlite3.Error) -> None:
        """Log it, loudly only once: on a full disk or a read-only one it is so at every look-up."""
        log.log(logging.DEBUG if what in self._told else logging.WARNING, "%s: %s", what, error)
        self._told.add(what)


def _whole(rows: list[tuple[Any, ...]]) -> int:
    return rows[0][0] if rows and isinstance(rows[0][0], int) else 0
