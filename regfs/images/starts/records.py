"""Stores the records of starts of one repository's images in the cache and beside the image, and finds them.

model/start_record.py has the format. Used by repository.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from regfs.errors import BadContent, NotFound, RegistryUnavailable, TooLarge, Unsupported
from regfs.images.answers.blobs import Blobs
from regfs.images.answers.manifests import Manifests
from regfs.images.answers.referrers import Referrers
from regfs.model.digest import Digest
from regfs.model.manifest import EMPTY, Descriptor, Manifest, parse_manifest
from regfs.model.media_types import OCI_MANIFEST
from regfs.model.names import RepositoryName
from regfs.model.render import render_manifest
from regfs.model.start_record import MAX_RECORD, START_TYPE, StartRecord, parse_start_record, render_start_record
from regfs.store.blobs import BlobStore
from regfs.store.references.references import References

if TYPE_CHECKING:
    from regfs.registry.push import Pushes

log = logging.getLogger(__name__)

CREATED = "org.opencontainers.image.created"
_MOST_LOOKED_AT = 4
_FAILURES = (NotFound, RegistryUnavailable, BadContent, TooLarge, Unsupported)


class StartRecords:
    """The records of the images of the repository *name*."""

    def __init__(
        self,
        name: RepositoryName,
        *,
        manifests: Manifests,
        blobs: Blobs,
        referrers: Referrers,
        references: References,
        store: BlobStore,
    ) -> None:
        self._name = name
        self._manifests = manifests
        self._blobs = blobs
        self._referrers = referrers
        self._references = references
        self._store = store

    def keep(self, manifest: Digest, record: StartRecord) -> None:
        """Store *record* in the cache, for the image with *manifest*."""
        content = render_start_record(record)
        digest = Digest.of(content)
        self._store.keep(digest, content)
        self._references.keep_start(manifest, digest)

    def here(self, manifest: Digest) -> StartRecord | None:
        """Return the record in the cache, None if it has none. No network."""
        digest = self._references.start(manifest)
        content = None if digest is None else self._store.load(digest, at_most=MAX_RECORD)
        try:
            return None if content is None else parse_start_record(content)
        except _FAILURES as error:
            log.info("the record of %s@%s cannot be used: %s", self._name, manifest, error)
            return None

    def pushed(self, manifest: Digest) -> StartRecord | None:
        """Return the newest valid record that refers to the image; None if there is none.

        Blocks on the network; the list of referrers is fetched once an hour.
        """
        found = self._referrers.of(manifest, START_TYPE)
        newest = sorted(found, key=lambda each: each.annotations.get(CREATED, ""), reverse=True)
        for referrer in newest[:_MOST_LOOKED_AT]:
            try:
                record = self._fetched(manifest, referrer.digest)
            except _FAILURES as error:
                log.info("the record %s of %s@%s cannot be used: %s", referrer.digest, self._name, manifest, error)
                continue
            self.keep(manifest, record)
            return record
        return None

    def push(self, image: Descriptor, record: StartRecord, pushes: Pushes) -> Digest:
        """Push *record* as an artifact that refers to the manifest *image*; return its digest. See RegistryClient."""
        content = render_start_record(record)
        created = {CREATED: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        layer = Descriptor(START_TYPE, Digest.of(content), len(content))
        for blob in (content, b"{}"):
            pushes.blob(self._name, blob)
        document = render_manifest(EMPTY, [layer], artifact_type=START_TYPE, subject=_bare(image), annotations=created)
        listed = Descriptor(
            OCI_MANIFEST, Digest.of(document), len(document), annotations=created, artifact_type=START_TYPE
        )
        pushes.referrer(self._name, document, listed, subject=image.digest)
        self._referrers.forget(image.digest)
        return listed.digest

    def _fetched(self, manifest: Digest, artifact: Digest) -> StartRecord:
        document = self._manifests.document(artifact, OCI_MANIFEST)
        parsed = parse_manifest(document.content, content_type=document.media_type)
        if not isinstance(parsed, Manifest) or parsed.subject is None or parsed.subject.digest != manifest:
            raise Unsupported("it does not refer to this image")
        layer = next((each for each in parsed.layers if each.media_type == START_TYPE), None)
        if layer is None:
            raise Unsupported("it has no record")
        return parse_start_record(self._blobs.small(layer, at_most=MAX_RECORD))


def _bare(descriptor: Descriptor) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)
