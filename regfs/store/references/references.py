"""What references pointed to when a registry was last asked: the memory that outlives a mount.

It has only names, so that a registry that is down, or --offline, still shows what was last seen; blobs.py has the
content that digests name. reference_database.py has the tables. Used by images/. Thread rule: any thread.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regfs.errors import BadContent, InvalidName, TooLarge, Unsupported
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Index, parse_manifest
from regfs.model.media_types import OCI_INDEX
from regfs.model.names import RepositoryName
from regfs.model.render import render_index
from regfs.store.references.known_repositories import KnownRepositories, left_s
from regfs.store.references.reference_database import ReferenceDatabase
from regfs.store.references.tag_history import TagHistory

__all__ = ["ListRecord", "References", "ReferrersRecord", "TagRecord", "left_s"]

log = logging.getLogger(__name__)


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


class ReferrersRecord(NamedTuple):
    """What referred to a manifest at *checked* (seconds since 1970)."""

    manifests: tuple[Descriptor, ...]
    checked: float


class References:
    """The references that were looked up, in the database at *path*.

    *repositories* are those that are known, *history* is what tags pointed to.
    """

    def __init__(self, path: Path) -> None:
        self._database = ReferenceDatabase(path)
        self.repositories = KnownRepositories(self._database)
        self.history = TagHistory(self._database)

    def tag(self, repository: RepositoryName, tag: str) -> TagRecord | None:
        """Return what *tag* pointed to when it was last asked for."""
        rows = self._database.query(
            "SELECT digest, media_type, size, checked FROM tags WHERE registry=? AND path=? AND tag=?",
            (repository.registry, repository.path, tag),
        )
        try:
            return next((TagRecord(Digest.parse(row[0]), row[1], row[2], row[3]) for row in rows), None)
        except InvalidName as error:  # a damaged file: only valid answers are kept
            log.warning("what is remembered of %s:%s cannot be used: %s", repository, tag, error)
            return None

    def keep_tag(self, repository: RepositoryName, tag: str, record: TagRecord) -> None:
        """Remember what *tag* points to."""
        self._database.change(
            "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)",
            (repository.registry, repository.path, tag, str(record.digest), record.media_type, record.size,
             record.checked),
        )  # fmt: skip

    def drop_tag(self, repository: RepositoryName, tag: str) -> None:
        """Forget a tag that the registry no longer has; the content that it named stays."""
        self._database.change(
            "DELETE FROM tags WHERE registry=? AND path=? AND tag=?", (repository.registry, repository.path, tag)
        )

    def known_tags(self, repository: RepositoryName) -> list[str]:
        """Return the tags of *repository* that were resolved at some time."""
        named = (repository.registry, repository.path)
        return [
            row[0]
            for row in self._database.query("SELECT tag FROM tags WHERE registry=? AND path=? ORDER BY tag", named)
        ]

    def listing(self, registry: str, path: str) -> ListRecord | None:
        """Return the last listing of a repository's tags."""
        rows = self._database.query("SELECT names, checked FROM lists WHERE registry=? AND path=?", (registry, path))
        try:
            return next((ListRecord(tuple(json.loads(row[0])), row[1]) for row in rows), None)
        except (ValueError, TypeError) as error:
            log.warning("the remembered listing of %s/%s cannot be used: %s", registry, path, error)
            return None

    def keep_listing(self, registry: str, path: str, names: Sequence[str]) -> None:
        """Remember a complete listing."""
        self._database.change(
            "INSERT OR REPLACE INTO lists VALUES (?, ?, ?, ?)", (registry, path, json.dumps(names), time.time())
        )

    def expire_listing(self, registry: str, path: str) -> None:
        """Mark the listing as too old: the registry is asked again, and the listing serves where that fails."""
        self._database.change("UPDATE lists SET checked=0 WHERE registry=? AND path=?", (registry, path))

    def expire_tags(self, repository: RepositoryName, digest: Digest) -> None:
        """Mark the tags that point to *digest* as too old, as expire_listing() does."""
        self._database.change(
            "UPDATE tags SET checked=0 WHERE registry=? AND path=? AND digest=?",
            (repository.registry, repository.path, str(digest)),
        )

    def tag_pointing_to(self, repository: RepositoryName, digest: Digest, *, since: float) -> str | None:
        """Return a tag that pointed to *digest* at *since* (seconds since 1970) or later; None where there is none."""
        rows = self._database.query(
            "SELECT tag FROM tags WHERE registry=? AND path=? AND digest=? AND checked>=?"
            " ORDER BY checked DESC LIMIT 1",
            (repository.registry, repository.path, str(digest), since),
        )
        return rows[0][0] if rows else None

    def referrers(self, repository: RepositoryName, digest: Digest) -> ReferrersRecord | None:
        """Return what referred to the manifest *digest* when that was last asked for."""
        rows = self._database.query(
            "SELECT list, checked FROM referrers WHERE registry=? AND path=? AND digest=?",
            (repository.registry, repository.path, str(digest)),
        )
        for content, checked in rows:
            try:
                index = parse_manifest(content, content_type=OCI_INDEX)
            except (BadContent, TooLarge, Unsupported, TypeError) as error:
                log.warning("the remembered referrers of %s@%s cannot be used: %s", repository, digest, error)
                return None
            return ReferrersRecord(index.manifests, checked) if isinstance(index, Index) else None
        return None

    def keep_referrers(self, repository: RepositoryName, digest: Digest, manifests: Sequence[Descriptor]) -> None:
        """Remember what refers to the manifest *digest*."""
        self._database.change(
            "INSERT OR REPLACE INTO referrers VALUES (?, ?, ?, ?, ?)",
            (repository.registry, repository.path, str(digest), render_index(manifests), time.time()),
        )

    def expire_referrers(self, repository: RepositoryName, digest: Digest) -> None:
        """Mark the referrers of *digest* as too old, as expire_listing() does."""
        self._database.change(
            "UPDATE referrers SET checked=0 WHERE registry=? AND path=? AND digest=?",
            (repository.registry, repository.path, str(digest)),
        )

    def expire_all(self) -> None:
        """Mark all tags, listings, catalogs and referrers as too old, as expire_listing() does."""
        for statement in (
            "UPDATE tags SET checked=0",
            "UPDATE lists SET checked=0",
            "UPDATE catalogs SET checked=0",
            "UPDATE referrers SET checked=0",
        ):
            self._database.change(statement, ())

    def drop_listing(self, registry: str, path: str) -> None:
        """Forget the listing of a repository that is gone."""
        self._database.change("DELETE FROM lists WHERE registry=? AND path=?", (registry, path))

    def manifest_type(self, repository: RepositoryName, digest: Digest) -> str:
        """Return the media type under which *repository* has shown the manifest *digest*; '' where it never has."""
        rows = self._database.query(
            "SELECT media_type FROM manifests WHERE registry=? AND path=? AND digest=?",
            (repository.registry, repository.path, str(digest)),
        )
        return rows[0][0] if rows else ""

    def keep_manifest(self, repository: RepositoryName, digest: Digest, media_type: str) -> None:
        """Remember that *repository* has the manifest *digest*."""
        self._database.change(
            "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?)",
            (repository.registry, repository.path, str(digest), media_type),
        )

    def start(self, manifest: Digest) -> Digest | None:
        """Return the blob that records a start of the image with *manifest*; None where none is known."""
        rows = self._database.query("SELECT record FROM starts WHERE digest=?", (str(manifest),))
        try:
            return next((Digest.parse(row[0]) for row in rows), None)
        except InvalidName:
            return None

    def keep_start(self, manifest: Digest, record: Digest) -> None:
        """Remember that the blob *record* records a start of the image with *manifest*."""
        self._database.change("INSERT OR REPLACE INTO starts VALUES (?, ?)", (str(manifest), str(record)))

    def created(self, digest: Digest) -> int:
        """Return when the image *digest* was made, in nanoseconds since 1970; 0 where it is not known."""
        return _whole(self._database.query("SELECT ns FROM created WHERE digest=?", (str(digest),)))

    def tag_created(self, repository: RepositoryName, tag: str) -> int:
        """Return when the image that *tag* pointed to last was made, as created() does."""
        rows = self._database.query(
            "SELECT ns FROM tags JOIN created USING (digest) WHERE registry=? AND path=? AND tag=?",
            (repository.registry, repository.path, tag),
        )
        return _whole(rows)

    def keep_created(self, digests: Iterable[Digest], created_ns: int) -> None:
        """Remember when the image that *digests* name was made; what a digest names never changes."""
        for digest in digests:
            self._database.change("INSERT OR IGNORE INTO created VALUES (?, ?)", (str(digest), created_ns))

    def has_manifests(self, repository: RepositoryName) -> bool:
        """Tell whether *repository* has ever shown a manifest."""
        found = self._database.query(
            "SELECT 1 FROM manifests WHERE registry=? AND path=? LIMIT 1", (repository.registry, repository.path)
        )
        return bool(found)

    def digests(self, repository: RepositoryName) -> list[str]:
        """Return the digests that the tags of *repository* pointed to, and those of the manifests that it has shown."""
        rows = self._database.query(
            "SELECT digest FROM manifests WHERE registry=? AND path=?"
            " UNION SELECT digest FROM tags WHERE registry=? AND path=?",
            (repository.registry, repository.path) * 2,
        )
        return [row[0] for row in rows]

    def last_visit(self, repository: RepositoryName) -> float | None:
        """Return when a tag of *repository* was resolved last (seconds since 1970); None if none ever was."""
        rows = self._database.query(
            "SELECT max(checked) FROM tags WHERE registry=? AND path=?", (repository.registry, repository.path)
        )
        return rows[0][0] if rows and isinstance(rows[0][0], float) else None


def _whole(rows: list[tuple[Any, ...]]) -> int:
    return rows[0][0] if rows and isinstance(rows[0][0], int) else 0
