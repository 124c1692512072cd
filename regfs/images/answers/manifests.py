"""The manifests and indexes of one repository by digest: from the cache, else from the registry.

The content of a digest never changes, so it is fetched once. Used by repository.py. Thread rule: any thread; each
document is fetched by one flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import NotFound, ProtocolViolation, RegfsError
from regfs.images.answers.remembered import MISSING_TTL_S, Refreshes, Remembered
from regfs.images.answers.short_digests import digest_beginning
from regfs.model.digest import Digest
from regfs.model.media_types import OCTET_STREAM
from regfs.model.names import RepositoryName
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.references.references import References
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.registry.manifests import FetchedManifest

MissingManifests = Remembered[tuple[RepositoryName, Digest], tuple[type[RegfsError], str]]
"""The errors for manifests that are missing: NotFound, or another one if the registry contradicts itself."""

_JUST_NAMED_S = 60.0


def missing_manifests(refreshes: Refreshes, *, ttl_s: float) -> MissingManifests:
    """Return a new store of missing manifests, for all repositories of a mount."""
    return Remembered(refreshes, ttl_s=min(MISSING_TTL_S, ttl_s))


class Document(NamedTuple):
    """The exact bytes of a manifest or index, verified, with the media type under which they are known."""

    digest: Digest
    content: bytes
    media_type: str


class Manifests:
    """The manifests of the repository *name*; *on_missing* is called with a digest that the registry does not have."""

    def __init__(
        self,
        name: RepositoryName,
        *,
        registry: RegistryClient,
        store: BlobStore,
        references: References,
        missing: MissingManifests,
        on_missing: Callable[[Digest], None],
        tag_ttl_s: float,
        flights: Flights,
        stats: Stats,
    ) -> None:
        self._name = name
        self._registry = registry
        self._store = store
        self._references = references
        self._missing = missing
        self._on_missing = on_missing
        self._tag_ttl_s = tag_ttl_s
        self._flights = flights
        self._stats = stats

    def document(self, digest: Digest, media_type: str = "") -> Document:
        """Return a manifest or index by digest, from the store or the registry. May block on the network.

        *media_type* is the type under which a tag or an index of this repository names it; '' if unknown.

        Raises NotFound, AccessDenied, DigestMismatch, ProtocolViolation, and the errors of the network.
        """
        # The store is shared by all repositories. Without the registry's word that this one has it, a cached private
        # manifest would be shown in any repository to users who guess its digest.
        known_type = media_type or self._references.manifest_type(self._name, digest)
        content = self._load(digest) if known_type else None
        if content is not None:
            self._stats.count("cache.hits")
            return Document(digest, content, known_type)
        missing = self._missing.get((self._name, digest))
        if missing is not None:
            kind, reason = missing
            raise kind(reason)
        document = self._flights.run(("manifest", self._name, digest), lambda: self._fetch(digest))
        return document._replace(media_type=known_type or document.media_type)

    def digest_beginning(self, short: str) -> Digest:
        """Return the one known digest whose hex digits begin with *short*; no network. Raises DigestUnresolved."""
        return digest_beginning(short, self._name, self._references, self._load)

    def created_ns(self, digest: Digest) -> int:
        """Return when the image *digest* was made, in nanoseconds since 1970; 0 if unknown. No network."""
        return self._references.created(digest)

    def keep_created(self, digests: Iterable[Digest], created_ns: int) -> None:
        """Store when the image that *digests* name was made, according to its config."""
        self._references.keep_created(digests, created_ns)

    def _load(self, digest: Digest) -> bytes | None:
        return self._store.load(digest, at_most=DOCUMENT_LIMIT)

    def _fetch(self, digest: Digest) -> Document:
        """Ask the registry for the manifest; runs in a flight."""
        try:
            fetched = self._registry.manifests.fetch(self._name, digest)
        except NotFound as missing:
            fetched = self._fetch_by_tag(digest, missing)
        self._store.keep(fetched.digest, fetched.content)
        # The type is a hint of this answer: model/manifest.py uses it only if the bytes do not decide.
        self._references.keep_manifest(self._name, fetched.digest, fetched.content_type or OCTET_STREAM)
        return Document(fetched.digest, fetched.content, fetched.content_type)

    def _fetch_by_tag(self, digest: Digest, missing: NotFound) -> FetchedManifest:
        """Fetch the document *digest* by a tag that pointed to it a moment ago: some registries serve it only by tag.

        Raises *missing* if no tag points to it (any more), ProtocolViolation if the tag has other bytes.
        """
        since = time.time() - max(self._tag_ttl_s, _JUST_NAMED_S)
        tag = self._references.tag_pointing_to(self._name, digest, since=since)
        fetched: FetchedManifest | None = None
        failure: RegfsError = missing
        if tag is not None:
            with suppress(NotFound):
                fetched = self._registry.manifests.fetch(self._name, tag)
        if fetched is not None and fetched.digest == digest:
            return fetched
        if fetched is not None:  # not a NotFound: the name that was looked up exists
            failure = ProtocolViolation(
                f"{self._name}:{tag}: the registry named {digest}, which it does not have; the tag has {fetched.digest}"
            )
        self._missing.keep((self._name, digest), (type(failure), str(failure)))
        self._on_missing(digest)
        raise failure from missing
