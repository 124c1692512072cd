"""Finds layers that may be signatures of a manifest: those of cosign's tag, and of sigstore bundles that refer to it.

A list of referrers is not trusted: what is signed must name the manifest, so a wrong entry only costs a request. Used
by rules.py. Thread rule: functions; any thread; blocks on the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from regfs.errors import BadContent, NotFound, TooLarge, Unsupported
from regfs.images.repository import Repository
from regfs.model.attestations.documents import IN_TOTO_PAYLOAD, cosign_payload, statement_in
from regfs.model.attestations.kinds import BUNDLE, COSIGN_SIGN, DSSE, SIMPLE_SIGNING
from regfs.model.attestations.signatures import (
    ENVELOPE,
    HASHED,
    Signature,
    attestation_signature,
    bundle_signature,
    cosign_signature,
)
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest, parse_manifest
from regfs.model.signature_policy import is_repository

log = logging.getLogger(__name__)

MOST_BYTES = 4 << 20
"""The size of the largest signature that is fetched."""
MOST_SIGNATURES = 64
"""How many manifests that may be signatures of one image are read, and how many layers of each."""
_FAILURES = (BadContent, NotFound, TooLarge, Unsupported)


def signature_layers(repository: Repository, digest: Digest) -> Iterator[Descriptor]:
    """Yield the layers that may be signatures of the manifest *digest*. Raises the errors of the network."""
    for tag in repository.tags.about(digest):
        if tag.endswith(".sig"):
            try:
                found = repository.tags.resolve(tag).digest
            except NotFound:
                continue
            yield from layers_of(repository, found)
    for referrer in _bundles(repository, digest)[:MOST_SIGNATURES]:
        yield from layers_of(repository, referrer.digest)


def count_unread(repository: Repository, digest: Digest) -> int:
    """Return how many bundles of the manifest *digest* signature_layers() leaves out, because there are too many."""
    return max(0, len(_bundles(repository, digest)) - MOST_SIGNATURES)


def _bundles(repository: Repository, digest: Digest) -> list[Descriptor]:
    return [each for each in repository.referrers.listed(digest) if (each.artifact_type or "").startswith(BUNDLE)]


def layers_of(repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
    """Return the layers of a manifest that may be signatures; none if it cannot be read."""
    try:
        document = repository.manifests.document(digest)
        parsed = parse_manifest(document.content, content_type=document.media_type)
    except _FAILURES as error:
        log.info("%s@%s is not a signature: %s", repository.name, digest, error)
        return ()
    return parsed.layers[:MOST_SIGNATURES] if isinstance(parsed, Manifest) else ()


def read_signature(content: bytes, layer: Descriptor) -> Signature:
    """Parse the blob *content* of *layer* as a signature. Raises BadContent, TooLarge."""
    if layer.media_type.startswith(BUNDLE):
        return bundle_signature(content)
    if layer.media_type == SIMPLE_SIGNING:
        return cosign_signature(content, layer.annotations)
    if layer.media_type == DSSE:
        return attestation_signature(content, layer.annotations)
    raise BadContent(f"it is {layer.media_type[:100]!r}, of which a containers-policy.json says nothing")


def check_subject(signature: Signature, repository: Repository, digest: Digest, named: str) -> None:
    """Raise BadContent unless *signature* is of the image *digest* of *repository*.

    *named* is the repository that it must name; "" means *repository*. Envelopes name no repository.
    """
    if signature.kind == HASHED:
        payload = cosign_payload(signature.payload)
        if payload.digest != str(digest):
            raise BadContent(f"it is of {payload.digest[:100]}")
        if not is_repository(payload.reference, repository.name, named):
            raise BadContent(f"it is for the repository {payload.reference[:200]!r}")
        return
    if signature.payload_type != IN_TOTO_PAYLOAD:
        raise BadContent(f"it signs {signature.payload_type[:100]!r}, not a statement about an image")
    statement = statement_in(signature.payload)
    if str(digest) not in statement.subjects:
        raise BadContent(f"it is of {', '.join(statement.subjects)[:200] or 'nothing'}")


def check_purpose(signature: Signature) -> None:
    """Raise BadContent if *signature* is an attestation: it describes an image, and does not say that it may be used.

    cosign 3 signs an image by a statement with a predicate type of its own.
    """
    if signature.kind == ENVELOPE:
        predicate_type = statement_in(signature.payload).predicate_type
        if predicate_type != COSIGN_SIGN:
            raise BadContent(f"it is an attestation, {predicate_type[:100]!r}")
