"""Finds the SOCI index of an image, and the zTOCs of its layers.

    version 2    the manifest's annotation names the index, so that the image's digest authenticates it
    version 1    the index names the manifest as its subject, and is found among its referrers. It is not authenticated:
                 users with push access, and each mirror, can decide what the image's files are. Hence --soci-v1

Without an index the layers are read whole. layers/formats/soci.py has the format. Used by image.py. Thread rule: any
thread; blocks on the network.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from regfs.errors import BadContent, InvalidName, NotFound, RegistryUnavailable, TooLarge, Unsupported
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest, parse_manifest
from regfs.model.media_types import OCI_MANIFEST, is_tar_layer, layer_compression

if TYPE_CHECKING:
    from regfs.layers.formats.soci import Soci

log = logging.getLogger(__name__)

INDEX_DIGEST = "com.amazon.soci.index-digest"
"""A manifest's annotation: the digest of the image's SOCI index (layers/formats/soci.py)."""
LEAST_LAYER = 10 << 20
"""The smallest layer, in bytes, for which soci makes a zTOC by default. For smaller ones, no index is looked for."""

_FAILURES = (NotFound, InvalidName, RegistryUnavailable, BadContent, TooLarge, Unsupported)
_MOST_INDEXES = 4


def may_have_ztoc(layer: Descriptor) -> bool:
    """Whether *layer* may have a zTOC and is big enough to look for one."""
    is_gzip = is_tar_layer(layer.media_type) and layer_compression(layer.media_type) == "gzip"
    return is_gzip and layer.size >= LEAST_LAYER


def ztocs_of_index(repository: Repository, named: str, *, what: str) -> Mapping[Digest, Descriptor]:
    """Return the zTOCs of the SOCI index with the digest *named*, by the digests of their layers."""
    from regfs.layers.formats.soci import ztocs_of

    try:
        return ztocs_of(_manifest(repository, Digest.parse(named)))
    except _FAILURES as error:
        log.warning("%s: its SOCI index is unusable: %s", what, error)
        return {}


def ztocs_of_referrers(repository: Repository, manifest: Digest) -> Mapping[Digest, Descriptor]:
    """Return the zTOCs of the first valid SOCI index that refers to *manifest*; soci does not specify which one."""
    from regfs.layers.formats.soci import INDEX_V1, ztocs_of

    for referrer in repository.referrers.of(manifest, INDEX_V1)[:_MOST_INDEXES]:
        try:
            index = _manifest(repository, referrer.digest)
            if index.subject is None or index.subject.digest != manifest:
                raise Unsupported("it does not refer to this image")
            found = ztocs_of(index)
        except _FAILURES as error:
            log.warning("%s@%s: its SOCI index %s is unusable: %s", repository.name, manifest, referrer.digest, error)
            continue
        if found:
            return found
    return {}


def soci_format(repository: Repository, ztoc: Descriptor) -> Soci:
    """Return the format of a layer that has *ztoc*, a blob of *repository*. Makes no request."""
    from regfs.layers.formats.soci import Soci
    from regfs.layers.formats.ztoc import MAX_ZTOC

    return Soci(ztoc.digest, partial(repository.blobs.small, ztoc, at_most=MAX_ZTOC))


def _manifest(repository: Repository, digest: Digest) -> Manifest:
    document = repository.manifests.document(digest, OCI_MANIFEST)
    parsed = parse_manifest(document.content, content_type=document.media_type)
    if not isinstance(parsed, Manifest):
        raise Unsupported(f"{digest} is an index of images")
    return parsed
