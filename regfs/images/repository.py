"""Repositories: tags, what they point to now, manifests and blobs, each asked for once.

Here registry and store meet: the store answers what it has, the registry the rest, and what the registry answered is
kept. A tag may move, so what it points to is an answer with an age (`tag_ttl_s`); what a digest names never changes.
A registry that does not answer is no reason to forget: the last known tag and all verified content keep serving.
Used by images/image.py and the tree. Thread rule: any thread; each question is one flight however many ask it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cachetools import TTLCache

from regfs.errors import (
    AccessDenied,
    DigestMismatch,
    NotFound,
    RateLimited,
    RegistryTimeout,
    RegistryUnavailable,
    TooLarge,
    Unsupported,
)
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import DOCKER_HUB, RepositoryName
from regfs.stats import Stats
from regfs.store.blobs import BlobStore
from regfs.store.references import ListRecord, References, TagRecord
from regfs.store.single_flight import Flights

log = logging.getLogger(__name__)

_NEGATIVE_TTL_S = 10.0
# A registry that is down is not asked again at every look-up while there is an older answer.
_STALE_TTL_S = 10.0
_UNREACHABLE = (RegistryUnavailable, RegistryTimeout, RateLimited)


class FetchedDocument(Protocol):
    """A manifest or index as it came, verified: exact bytes, their media type and digest."""

    @property
    def content(self) -> bytes: ...

    @property
    def content_type(self) -> str: ...

    @property
    def digest(self) -> Digest: ...


class Registry(Protocol):
    """What this room asks of the registry client (registry/client.py). All of it blocks on the network."""

    def tags(self, repository: RepositoryName) -> list[str]: ...

    def repositories(self, registry: str) -> list[str]: ...

    def resolve(self, repository: RepositoryName, tag: str) -> Descriptor: ...

    def manifest(self, repository: RepositoryName, reference: str | Digest) -> FetchedDocument: ...

    def blob(self, repository: RepositoryName, descriptor: Descriptor) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tag points to: *digest*, and until when (monotonic seconds) this answer holds."""

    digest: Digest
    media_type: str
    size: int
    expires: float

    @property
    def valid_s(self) -> float:
        """For how many seconds more the answer holds."""
        return max(0.0, self.expires - time.monotonic())


@dataclass(frozen=True, slots=True)
class Document:
    """The exact bytes of a manifest or index, verified, with the media type under which they are known."""

    digest: Digest
    content: bytes
    media_type: str


class Repositories:
    """All repositories of one mount, and what they share.

    *tag_ttl_s*: for how long an answer about a tag or a listing is taken as it is.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        blobs: BlobStore,
        references: References,
        flights: Flights,
        stats: Stats,
        tag_ttl_s: float,
    ) -> None:
        self.registry = registry
        self.blobs = blobs
        self.references = references
        self.flights = flights
        self.stats = stats
        self.tag_ttl_s = tag_ttl_s
        self._lock = threading.Lock()
        self._repositories: dict[RepositoryName, Repository] = {}
        self._unlistable: TTLCache[str, bool] = TTLCache(1024, max(tag_ttl_s, 60.0))

    def repository(self, name: RepositoryName) -> Repository:
        """Return the one object for *name*; nothing is asked."""
        with self._lock:
            return self._repositories.setdefault(name, Repository(name, self))

    def known_registries(self) -> list[str]:
        """Return the registries of which something was seen; no network."""
        return self.references.known_registries()

    def known_repositories(self, registry: str) -> list[str]:
        """Return the paths of the repositories that were seen or listed; no network."""
        return self.references.known_repositories(registry)

    def repositories(self, registry: str) -> list[str]:
        """Return the repositories' paths: the registry's catalog where it has one, and what is known beside it.

        Blocks on the network where the catalog is older than the tag TTL. A catalog that is refused (Docker Hub,
        GHCR) or cannot be reached leaves what is known.
        """
        if registry == DOCKER_HUB:  # it gives nobody the scope to list it (registry:catalog:*)
            return self.known_repositories(registry)
        if registry not in self._unlistable and not _is_fresh(self.references.listing(registry, ""), self.tag_ttl_s):
            self.flights.run(("catalog", registry), lambda: self._fetch_catalog(registry))
        return self.known_repositories(registry)

    def _fetch_catalog(self, registry: str) -> None:
        try:
            names = self.registry.repositories(registry)
        except (AccessDenied, NotFound, Unsupported) as refusal:
            log.info("%s does not list its repositories: %s", registry, refusal)
            with self._lock:
                self._unlistable[registry] = True
        except _UNREACHABLE:
            if not self.known_repositories(registry):
                raise
        else:
            self.references.keep_listing(registry, "", names)


class Repository:
    """One repository. Made by Repositories.repository()."""

    def __init__(self, name: RepositoryName, shared: Repositories) -> None:
        self.name = name
        self._shared = shared
        self._lock = threading.Lock()
        self._resolved: dict[str, Resolved] = {}
        self._missing: TTLCache[str, str] = TTLCache(1024, _NEGATIVE_TTL_S)
        self._stale_until = 0.0

    def tags(self) -> tuple[str, ...]:
        """Return the tags: one listing, whatever their number. Blocks on the network where it is older than the TTL.

        Raises NotFound where there is no such repository; AccessDenied; with the registry unreachable, the last known
        listing answers, or the tags that were visited, or RegistryUnavailable is raised.
        """
        listing = self._shared.references.listing(self.name.registry, self.name.path)
        if listing and (_is_fresh(listing, self._shared.tag_ttl_s) or time.monotonic() < self._stale_until):
            return listing.names
        self._raise_missing("")
        return self._shared.flights.run(("tags", self.name), self._fetch_tags)

    def lists(self, tag: str) -> bool:
        """Tell whether a listing that is still fresh names *tag*; no network."""
        listing = self._shared.references.listing(self.name.registry, self.name.path)
        return listing is not None and _is_fresh(listing, self._shared.tag_ttl_s) and tag in listing.names

    def exists(self) -> bool:
        """Tell whether the registry has this repository. Blocks on the network; raises AccessDenied and the like."""
        try:
            self.tags()
        except NotFound:
            return False
        return True

    def resolve(self, tag: str) -> Resolved:
        """Return what *tag* points to, asking the registry (HEAD) where the last answer is older than the TTL.

        Raises NotFound, AccessDenied; with the registry unreachable the last known answer serves, else the reason is
        raised.
        """
        resolved = self._resolved.get(tag)
        if resolved and resolved.valid_s > 0:
            return resolved
        record = self._shared.references.tag(self.name, tag)
        if record and _is_fresh(record, self._shared.tag_ttl_s):
            return self._remember(tag, record, self._shared.tag_ttl_s - (time.time() - record.checked))
        self._raise_missing(tag)
        return self._shared.flights.run(("tag", self.name, tag), lambda: self._fetch_tag(tag))

    def document(self, digest: Digest, media_type: str = "") -> Document:
        """Return a manifest or index by digest, from the store or the registry. *media_type*: what is known of it.

        Raises NotFound, AccessDenied, DigestMismatch, and what a network brings.
        """
        # Another repository's content is not this one's: without a word of this registry that the repository has it,
        # a private manifest that is cached would show up wherever its digest is guessed.
        known_type = media_type or self._shared.references.manifest_type(self.name, digest)
        content = self._shared.blobs.load(digest) if known_type else None
        if content is not None:
            self._shared.stats.count("cache.hits")
            return Document(digest, content, known_type)
        self._raise_missing(str(digest))
        return self._shared.flights.run(("manifest", self.name, digest), lambda: self._fetch_document(digest))

    def small_blob(self, descriptor: Descriptor, *, at_most: int) -> bytes:
        """Return a blob that is read as a whole (a config), from the store or the registry, verified.

        Raises TooLarge above *at_most* bytes, NotFound, DigestMismatch, and what a network brings.
        """
        if descriptor.content is not None:
            return descriptor.content
        content = self._shared.blobs.load(descriptor.digest)
        if content is not None:
            return content
        if descriptor.size > at_most:
            raise TooLarge(f"{self.name}@{descriptor.digest} has {descriptor.size} bytes; at most {at_most} are read")
        return self._shared.flights.run(("small", descriptor.digest), lambda: self._fetch_small_blob(descriptor))

    def blob_file(self, descriptor: Descriptor) -> Path:
        """Return the path of a file that holds the verified blob, fetching it whole where it is not there.

        Raises NotFound, DigestMismatch, CacheFailure, and what a network brings.
        """
        path = self._shared.blobs.path(descriptor.digest)
        if path.exists() and path.stat().st_size == descriptor.size:
            return path
        key = ("blob", descriptor.digest)
        return self._shared.flights.run(key, lambda: self._fetch_blob(descriptor), streams=True)

    def blob_chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the blob's raw bytes as they come, from the store where it is there; the caller verifies them."""
        path = self._shared.blobs.path(descriptor.digest)
        if path.exists():
            return _file_chunks(path)
        return self._shared.registry.blob(self.name, descriptor)

    # What runs inside a flight.

    def _fetch_tags(self) -> tuple[str, ...]:
        references = self._shared.references
        try:
            names = self._shared.registry.tags(self.name)
        except NotFound as missing:
            references.drop_listing(self.name.registry, self.name.path)
            self._note_missing("", missing)
            raise
        except _UNREACHABLE as reason:
            return self._last_known_tags(reason)
        references.keep_listing(self.name.registry, self.name.path, names)
        return tuple(names)

    def _last_known_tags(self, reason: Exception) -> tuple[str, ...]:
        listing = self._shared.references.listing(self.name.registry, self.name.path)
        names = listing.names if listing else tuple(self._shared.references.known_tags(self.name))
        if not names:
            raise reason
        log.info("%s: the last known tags are listed: %s", self.name, reason)
        self._stale_until = time.monotonic() + _STALE_TTL_S
        return names

    def _fetch_tag(self, tag: str) -> Resolved:
        references = self._shared.references
        try:
            descriptor = self._shared.registry.resolve(self.name, tag)
        except NotFound as missing:
            references.drop_tag(self.name, tag)
            self._resolved.pop(tag, None)
            self._note_missing(tag, missing)
            raise
        except _UNREACHABLE as reason:
            record = references.tag(self.name, tag)
            if record is None:
                raise
            log.info("%s:%s is shown as it was last known: %s", self.name, tag, reason)
            self._shared.stats.count("registry.stale_answers")
            return self._remember(tag, record, _STALE_TTL_S)
        record = TagRecord(descriptor.digest, descriptor.media_type, descriptor.size, time.time())
        references.keep_tag(self.name, tag, record)
        return self._remember(tag, record, self._shared.tag_ttl_s)

    def _remember(self, tag: str, record: TagRecord, valid_s: float) -> Resolved:
        expires = time.monotonic() + min(valid_s, self._shared.tag_ttl_s)
        resolved = Resolved(record.digest, record.media_type, record.size, expires)
        self._resolved[tag] = resolved
        return resolved

    def _fetch_document(self, digest: Digest) -> Document:
        try:
            fetched = self._shared.registry.manifest(self.name, digest)
        except NotFound as missing:
            self._note_missing(str(digest), missing)
            raise
        self._shared.blobs.keep(fetched.digest, fetched.content)
        self._shared.references.keep_manifest(self.name, fetched.digest, fetched.content_type)
        return Document(fetched.digest, fetched.content, fetched.content_type)

    def _fetch_small_blob(self, descriptor: Descriptor) -> bytes:
        content = b"".join(self._shared.registry.blob(self.name, descriptor))
        if len(content) != descriptor.size or not descriptor.digest.matches(content):
            raise DigestMismatch(f"{self.name}@{descriptor.digest}: the registry sent other bytes ({len(content)})")
        self._shared.blobs.keep(descriptor.digest, content)
        return content

    def _fetch_blob(self, descriptor: Descriptor) -> Path:
        chunks = self._shared.registry.blob(self.name, descriptor)
        return self._shared.blobs.receive(descriptor.digest, descriptor.size, chunks)

    # Names that are known to be missing: asked again only after some seconds, so that a probe is one request.

    def _note_missing(self, name: str, error: NotFound) -> None:
        with self._lock:
            self._missing[name] = str(error)

    def _raise_missing(self, name: str) -> None:
        with self._lock:
            reason = self._missing.get(name)
        if reason is not None:
            raise NotFound(reason)


def _is_fresh(record: ListRecord | TagRecord | None, ttl_s: float) -> bool:
    # A clock that was set back makes a record seem to come from the future: such a record is not fresh either.
    return record is not None and 0 <= time.time() - record.checked < ttl_s


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
