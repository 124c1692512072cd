"""Finds the external table of contents of an eStargz layer, which is kept in a layer of another image.

That image has the same name with `-esgztoc` after its tag. For each layer it has one that is a tar.gz of
`stargz.index.json` only, annotated with the digest of the layer that it is for. The manifest of the layer has the
digest of the table, so the other image need not be trusted. Without a table, the layer is read whole. Source:
stargz-snapshotter, estargz/externaltoc/externaltoc.go. Used by image.py. Thread rule: any thread; blocks on the
network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regfs.errors import AccessDenied, BadContent, InvalidName, NotFound, RegistryUnavailable, TooLarge, Unsupported
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest, parse_manifest

if TYPE_CHECKING:
    from regfs.layers.source import ByteSource

log = logging.getLogger(__name__)

SUFFIX = "-esgztoc"
LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
_MOST_PLATFORMS = 16
_FAILURES = (AccessDenied, BadContent, InvalidName, NotFound, RegistryUnavailable, TooLarge, Unsupported)


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table in memory, as a ByteSource."""

    content: bytes

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self.content)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the *size* bytes at *offset*."""
        return self.content[offset : offset + size]


def external_table(repository: Repository, image: Digest, layer: Digest) -> ByteSource | None:
    """Return the table of *layer*, a layer of the image with the digest *image*; None if there is none."""
    from regfs.layers.formats.estargz import MAX_STORED_TABLE

    tag = repository.tags.pointing_to(image)
    if tag is None:
        return None
    try:
        resolved = repository.tags.resolve(f"{tag}{SUFFIX}")
        for descriptor in _layers(repository, resolved.digest, resolved.media_type):
            if descriptor.annotations.get(LAYER_DIGEST) == str(layer):
                return StoredTable(repository.blobs.small(descriptor, at_most=MAX_STORED_TABLE))
    except _FAILURES as error:
        log.warning("%s:%s%s has no table of contents for %s: %s", repository.name, tag, SUFFIX, layer, error)
    return None


def _layers(repository: Repository, digest: Digest, media_type: str) -> Iterator[Descriptor]:
    """Yield the layers of an image, or of all images of an index."""
    document = repository.manifests.document(digest, media_type)
    parsed = parse_manifest(document.content, content_type=document.media_type)
    if isinstance(parsed, Manifest):
        yield from parsed.layers
        return
    for entry in parsed.manifests[:_MOST_PLATFORMS]:
        document = repository.manifests.document(entry.digest, entry.media_type)
        below = parse_manifest(document.content, content_type=document.media_type)
        if isinstance(below, Manifest):
            yield from below.layers
