"""One repository: its tags, what they point to now, manifests and blobs, each asked for once.

Here registry and store meet: the store answers what it has, the registry the rest, and what the registry answered is
kept. A tag may move, so what it points to is an answer with an age (`tag_ttl_s`); what a digest names never changes.
A registry that does not answer is no reason to forget: the last known tag and all verified content keep serving.
Used by images/image.py and the tree. Thread rule: any thread; each question is one flight however many ask it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from regfs.errors import BadContent, DigestMismatch, NotFound, ProtocolViolation, RegfsError, RegistryTimeout, TooLarge
from regfs.images.answers import STALE_TTL_S, UNREACHABLE, Document, Listed, Resolved, is_fresh
from regfs.images.fetching import file_chunks, has_digest, size_of, twice_if_wrong
from regfs.images.remembered import Remembered
from regfs.images.short_digests import digest_beginning
from regfs.images.sources import Sources
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import OCTET_STREAM
from regfs.model.names import RepositoryName
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.model.verification import verified
from regfs.registry.manifests import FetchedManifest
from regfs.store.references import TagRecord

log = logging.getLogger(__name__)

_JUST_NAMED_S = 60.0


class Repository:
    """One repository. Made by Repositories.repository()."""

    def __init__(self, name: RepositoryName, sources: Sources) -> None:
        self.name = name
        self._sources = sources
        self._remembered = Remembered(sources.tag_ttl_s)

    def tags(self) -> tuple[str, ...]:
        """Return the tags: one listing, whatever their number. Blocks on the network where it is older than the TTL.

        Raises NotFound, AccessDenied; with the registry unreachable what was last listed serves, or that is raised.
        """
        listed = self._known_listing()
        if listed is None:
            self._remembered.raise_missing("")
            listed = self._sources.flights.run(("tags", self.name), self._fetch_tags)
        return listed.names

    def tag_valid_s(self, tag: str) -> float:
        """Return for how many seconds *tag* is known to be there: a listing that names it will do, else it is resolved.

        Blocks on the network and raises as resolve() does.
        """
        listed = self._known_listing()
        if listed is not None and tag in listed.members:
            return max(0.0, listed.expires - time.monotonic())
        return self._resolve(tag, may_be_missing=True).valid_s

    def is_listed(self, tag: str) -> bool | None:
        """Tell whether the last listing has *tag*; None where none is fresh. No network."""
        listed = self._known_listing()
        return None if listed is None else tag in listed.members

    def last_known(self, tag: str) -> TagRecord | None:
        """Return what *tag* pointed to when the registry was last asked, and when that was; no network."""
        return self._sources.references.tag(self.name, tag)

    def exists(self) -> bool:
        """Tell whether the registry has this repository. Blocks on the network; raises AccessDenied and the like."""
        try:
            self.tags()
        except NotFound:
            return False
        return True

    def tag_created_ns(self, tag: str) -> int:
        """Return when the image was made that *tag* pointed to last, as created_ns() does."""
        return self._sources.references.tag_created(self.name, tag)

    def created_ns(self, digest: Digest) -> int:
        """Return when the image *digest* was made, in nanoseconds since 1970; 0 where it is not known. No network."""
        return self._sources.references.created(digest)

    def keep_created(self, digests: Iterable[Digest], created_ns: int) -> None:
        """Remember when the image that *digests* name was made, by its config."""
        self._sources.references.keep_created(digests, created_ns)

    def was_just_visited(self) -> bool:
        """Tell whether a tag was resolved here within the TTL, in this mount or another; no network."""
        visited = self._sources.references.last_visit(self.name)
        return visited is not None and 0 <= time.time() - visited < self._sources.tag_ttl_s

    def resolve(self, tag: str) -> Resolved:
        """Return what *tag* points to, asking the registry (HEAD) where the last answer is older than the TTL.

        Raises NotFound, AccessDenied; with the registry unreachable the last known answer serves, or that is raised.
        """
        return self._resolve(tag, may_be_missing=False)

    def _resolve(self, tag: str, *, may_be_missing: bool) -> Resolved:
        """Do the same. Where a tag *may_be_missing* that was never seen and never listed, it is asked for by GET."""
        resolved = self._remembered.resolved(tag)
        if resolved is not None:
            return resolved
        refreshes = self.refreshes
        record = self._sources.references.tag(self.name, tag)
        if record and is_fresh(record, self._sources.tag_ttl_s):
            left_s = self._sources.tag_ttl_s - (time.time() - record.checked)
            return self._remembered.keep_resolved(tag, record, left_s, refreshes)
        self._remembered.raise_missing(tag)
        try:
            may_be_missing = may_be_missing and record is None and not self._was_listed(tag)
            return self._sources.flights.run(
                ("tag", self.name, tag), lambda: self._fetch_tag(tag, may_be_missing=may_be_missing)
            )
        except RegistryTimeout as reason:  # the caller's time is over, while the registry is still being asked
            return self._last_known(tag, reason)

    def refresh(self) -> None:
        """Take no answer about tags for fresh that came before now; those of the disk are the caller's."""
        self._remembered.refresh()

    @property
    def refreshes(self) -> int:
        """How often refresh() was called: for learn_tags()."""
        return self._remembered.refreshes

    def learn_tags(self, names: list[str], refreshes: int) -> Listed:
        """Keep *names*, all tags, as the registry listed them. *refreshes* is the count from before it was asked."""
        references = self._sources.references
        references.keep_listing(self.name.registry, self.name.path, names)
        if self.refreshes != refreshes:  # the registry may have been asked before what the refresh is for
            references.expire_listing(self.name.registry, self.name.path)
        return self._remembered.keep_listed(tuple(names), self._sources.tag_ttl_s, refreshes)

    def document(self, digest: Digest, media_type: str = "") -> Document:
        """Return a manifest or index by digest, from the store or the registry.

        *media_type* is the type under which a tag or an index of this repository names it; '' where none did.

        Raises NotFound, AccessDenied, DigestMismatch, and what a network brings.
        """
        # Another repository's content is not this one's: without a word of this registry that the repository has it,
        # a private manifest that is cached would show up wherever its digest is guessed.
        known_type = media_type or self._sources.references.manifest_type(self.name, digest)
        content = self._load(digest, at_most=DOCUMENT_LIMIT) if known_type else None
        if content is not None:
            self._sources.stats.count("cache.hits")
            return Document(digest, content, known_type)
        self._remembered.raise_missing(str(digest))
        document = self._sources.flights.run(("manifest", self.name, digest), lambda: self._fetch_document(digest))
        return document._replace(media_type=known_type or document.media_type)

    def digest_beginning(self, short: str) -> Digest:
        """Return the one known digest whose hex digits begin with *short*; no network. Raises DigestUnresolved."""
        return digest_beginning(
            short, self.name, self._sources.references, lambda digest: self._load(digest, at_most=DOCUMENT_LIMIT)
        )

    def small_blob(self, descriptor: Descriptor, *, at_most: int) -> bytes:
        """Return a blob that is read as a whole (a config), from the store or the registry, verified.

        Raises TooLarge above *at_most* bytes, NotFound, DigestMismatch, and what a network brings.
        """
        if descriptor.content is not None:
            return descriptor.content
        if descriptor.size > at_most:
            raise TooLarge(f"{self.name}@{descriptor.digest} has {descriptor.size} bytes; at most {at_most} are read")
        content = self._load(descriptor.digest, at_most=at_most)
        if content is None:
            key = ("small", self.name, descriptor.digest, descriptor.size)
            return self._sources.flights.run(key, lambda: self._fetch_small_blob(descriptor))
        if len(content) != descriptor.size:
            raise DigestMismatch(f"{descriptor.digest} has {len(content)} bytes, its descriptor says {descriptor.size}")
        return content

    def blob_file(self, descriptor: Descriptor) -> Path:
        """Return the path of a file that holds the verified blob, fetching it whole where it is not there.

        Raises BadContent where the registry has none, DigestMismatch, CacheFailure, and what a network brings.
        """
        path = self._sources.blobs.path(descriptor.digest)
        if size_of(path) == descriptor.size:
            self._sources.blobs.touch(descriptor.digest)
            return path
        key = ("blob", self.name, descriptor.digest, descriptor.size)
        return self._sources.flights.run(key, lambda: self._fetch_blob(descriptor), streams=True)

    def blob_chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the blob's raw bytes as they come, verified, from the store if it is there.

        Raises DigestMismatch before the last chunk of wrong bytes, BadContent where the registry has none, and what a
        network brings.
        """
        path = self._sources.blobs.path(descriptor.digest)
        if size_of(path) == descriptor.size:
            try:
                is_right = has_digest(path, descriptor.digest)
            except OSError as error:  # evicted meanwhile, or one I/O error: it says nothing about the bytes
                log.warning(
                    "the cached copy of %s cannot be read (%s); it is fetched", descriptor.digest, error.strerror
                )
                return self._chunks(descriptor)
            if is_right:
                return iter(verified(file_chunks(path), descriptor.digest, descriptor.size))
            log.warning("the cached copy of %s is damaged and was dropped", descriptor.digest)
            self._sources.blobs.drop(descriptor.digest)
        return self._chunks(descriptor)

    def _load(self, digest: Digest, *, at_most: int) -> bytes | None:
        """Return a document of the store; None also where what has that digest is too long to be one."""
        size = size_of(self._sources.blobs.path(digest))
        return None if size is None or size > at_most else self._sources.blobs.load(digest)

    def _known_listing(self) -> Listed | None:
        listed = self._remembered.listed()
        if listed is not None:
            return listed
        refreshes = self.refreshes
        record = self._sources.references.listing(self.name.registry, self.name.path)
        if record is None or not is_fresh(record, self._sources.tag_ttl_s):
            return None
        valid_s = self._sources.tag_ttl_s - (time.time() - record.checked)
        return self._remembered.keep_listed(record.names, valid_s, refreshes)

    def _was_listed(self, tag: str) -> bool:
        listing = self._sources.references.listing(self.name.registry, self.name.path)
        return listing is not None and tag in listing.names

    # What runs inside a flight.

    def _fetch_tags(self) -> Listed:
        references, refreshes = self._sources.references, self.refreshes
        try:
            names = self._sources.registry.listing.tags(self.name)
        except NotFound as missing:
            references.drop_listing(self.name.registry, self.name.path)
            self._remembered.note_missing("", missing)
            raise
        except UNREACHABLE as reason:
            return self._last_known_tags(reason)
        return self.learn_tags(names, refreshes)

    def _last_known_tags(self, reason: Exception) -> Listed:
        listing = self._sources.references.listing(self.name.registry, self.name.path)
        names = listing.names if listing else tuple(self._sources.references.known_tags(self.name))
        if not names:
            raise reason
        log.info("%s: the last known tags are listed: %s", self.name, reason)
        self._sources.stats.count("registry.stale_answers")
        return self._remembered.keep_listed(names, STALE_TTL_S, self.refreshes)

    def _fetch_tag(self, tag: str, *, may_be_missing: bool) -> Resolved:
        references, refreshes = self._sources.references, self.refreshes
        try:
            said = self._sources.registry.manifests.resolve(self.name, tag, may_be_missing=may_be_missing)
            descriptor = self._confirmed(tag, said)
        except NotFound as missing:
            references.drop_tag(self.name, tag)
            self._remembered.drop_resolved(tag)
            self._remembered.note_missing(tag, missing)
            self._doubt_listing(tag)
            raise
        except UNREACHABLE as reason:
            return self._last_known(tag, reason)
        record = TagRecord(descriptor.digest, descriptor.media_type, descriptor.size, time.time())
        references.keep_tag(self.name, tag, record)
        if self.refreshes != refreshes:  # the registry may have been asked before what the refresh is for
            references.keep_tag(self.name, tag, record._replace(checked=0.0))
        return self._remembered.keep_resolved(tag, record, self._sources.tag_ttl_s, refreshes)

    def _confirmed(self, tag: str, said: Descriptor) -> Descriptor:
        """Return what *tag* names: by its bytes, where the registry lacks what it *said* (a HEAD that is wrong)."""
        if not self._remembered.lacks(said.digest):
            return said
        fetched = self._sources.registry.manifests.fetch(self.name, tag)
        return Descriptor(fetched.content_type, fetched.digest, len(fetched.content))

    def _last_known(self, tag: str, reason: Exception) -> Resolved:
        record = self.last_known(tag)
        if record is None:
            raise reason
        log.info("%s:%s is shown as it was last known: %s", self.name, tag, reason)
        self._sources.stats.count("registry.stale_answers")
        return self._remembered.keep_resolved(tag, record, STALE_TTL_S, self.refreshes)

    def _doubt_listing(self, tag: str) -> None:
        """Ask for the listing again, should it name *tag*, which the registry says it does not have."""
        listed = self._known_listing()
        if listed is not None and tag in listed.members:
            self._remembered.drop_listed()
            self._sources.references.expire_listing(self.name.registry, self.name.path)

    def _fetch_document(self, digest: Digest) -> Document:
        try:
            fetched = self._sources.registry.manifests.fetch(self.name, digest)
        except NotFound as missing:
            fetched = self._fetch_by_tag(digest, missing)
        self._sources.blobs.keep(fetched.digest, fetched.content)
        # The type is a hint of this answer: model/manifest.py asks it only where the bytes leave a choice.
        self._sources.references.keep_manifest(self.name, fetched.digest, fetched.content_type or OCTET_STREAM)
        return Document(fetched.digest, fetched.content, fetched.content_type)

    def _fetch_by_tag(self, digest: Digest, missing: NotFound) -> FetchedManifest:
        """Return the document *digest* by a tag that pointed to it a moment ago: some registries have it there alone.

        Raises *missing* where no tag points to it (any more), ProtocolViolation where other bytes are under the tag.
        """
        since = time.time() - max(self._sources.tag_ttl_s, _JUST_NAMED_S)
        tag = self._sources.references.tag_pointing_to(self.name, digest, since=since)
        fetched: FetchedManifest | None = None
        failure: RegfsError = missing
        if tag is not None:
            with suppress(NotFound):
                fetched = self._sources.registry.manifests.fetch(self.name, tag)
        if fetched is not None and fetched.digest == digest:
            return fetched
        if fetched is not None:  # the name that was looked up is there, so that this is no NotFound
            failure = ProtocolViolation(
                f"{self.name}:{tag}: the registry named {digest}, which it does not have; the tag has {fetched.digest}"
            )
        self._remembered.note_missing(str(digest), failure)
        self._doubt_tags(digest)
        raise failure from missing

    def _doubt_tags(self, digest: Digest) -> None:
        """Resolve the tags again that were thought to point to *digest*, which the registry says it does not have."""
        self._remembered.note_lacking(digest)
        self._sources.references.expire_tags(self.name, digest)

    def _fetch_small_blob(self, descriptor: Descriptor) -> bytes:
        return twice_if_wrong(lambda: self._receive_small_blob(descriptor))

    def _receive_small_blob(self, descriptor: Descriptor) -> bytes:
        content = b"".join(self._chunks(descriptor))
        self._sources.blobs.keep(descriptor.digest, content)
        return content

    def _fetch_blob(self, descriptor: Descriptor) -> Path:
        return twice_if_wrong(lambda: self._receive_blob(descriptor))

    def _receive_blob(self, descriptor: Descriptor) -> Path:
        chunks = self._sources.registry.blobs.stream(self.name, descriptor)
        try:
            return self._sources.blobs.receive(descriptor.digest, descriptor.size, chunks)
        except NotFound as missing:
            raise _lacking(missing) from missing

    def _chunks(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        try:
            yield from self._sources.registry.blobs.stream(self.name, descriptor)
        except NotFound as missing:
            raise _lacking(missing) from missing


def _lacking(missing: NotFound) -> BadContent:
    """Return the error for a blob that is *missing*: the name that was looked up is there, its bytes are not."""
    return BadContent(f"the registry lacks what a manifest of it names: {missing}")
