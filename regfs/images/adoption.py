"""Adoption: enters the content of image archives into the cache as if a registry had answered it.

An adopted name counts as expired: the registry is asked before the name is used. If it does not answer, or offline, the
name means what was adopted. Used by export/archive/ and verbs/import_archive.py. Thread rule: one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.model.verification import VerifiedChunks
from regfs.store.blobs import BlobStore
from regfs.store.references.references import References, TagRecord

_NEVER_ASKED = 0.0


class Adoption:
    """Enters blobs into *store* and names into *references*. *hold* keeps a file from eviction until let_go()."""

    def __init__(self, store: BlobStore, references: References, hold: Callable[[Path], object]) -> None:
        self._store = store
        self._references = references
        self._hold = hold
        self._held: list[object] = []

    def receive(self, digest: Digest, size: int, chunks: VerifiedChunks) -> None:
        """Store a blob unless the cache has it. Raises the errors of *chunks*, and CacheFailure."""
        self._held.append(self._hold(self._store.path(digest)))
        if self._store.size(digest) == size:
            for _ in chunks:  # reads all, because wrong bytes are an error here too
                pass
            self._store.touch(digest)
        else:
            self._store.receive(digest, size, chunks)

    def let_go(self) -> None:
        """Allow the eviction of what was received."""
        self._held.clear()

    def document(self, digest: Digest) -> bytes | None:
        """Return the bytes of a manifest or index; None if the cache lacks it."""
        return self._store.load(digest, at_most=DOCUMENT_LIMIT)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the cache has a blob."""
        return descriptor.content is not None or self._store.size(descriptor.digest) == descriptor.size

    def path(self, digest: Digest) -> Path:
        """Return the path of a blob in the cache."""
        return self._store.path(digest)

    def manifest(self, repository: RepositoryName, digest: Digest, media_type: str) -> None:
        """Record that *repository* has the manifest *digest*."""
        self._references.keep_manifest(repository, digest, media_type)

    def tag(self, repository: RepositoryName, tag: str, descriptor: Descriptor) -> None:
        """Record that *tag* points to *descriptor*."""
        record = TagRecord(descriptor.digest, descriptor.media_type, descriptor.size, _NEVER_ASKED)
        self._references.keep_tag(repository, tag, record)

    def referrers(self, repository: RepositoryName, subject: Digest, found: Sequence[Descriptor]) -> None:
        """Record that *found* refer to the manifest *subject*, besides the known referrers."""
        known = self._references.referrers(repository, subject)
        others = {each.digest: each for each in (known.manifests if known is not None else ())}
        others |= {each.digest: each for each in found}
        self._references.keep_referrers(repository, subject, list(others.values()))
        self._references.expire_referrers(repository, subject)
