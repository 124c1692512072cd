"""Judges images by the user's policy, on the digest that a name means, before anything of them is shown.

    reject, GPG, Fulcio …    refused, with the words of the policy (model/signature_policy.py)
    a key                    a signature by it is looked for: cosign's tag sha256-<hex>.sig, and sigstore bundles that
                             refer to the image. What is signed must name this digest; of a tag's, the repository too

A bundle counts if it is an in-toto statement of cosign's own type for signatures: an attestation by the same key says
something of an image, not that it may run. The key decides, a key id in the envelope does not. What was accepted stays
so: a signature that is gone later disturbs no process inside. A refusal is remembered for seconds.

Sources: containers-policy.json(5); cosign, specs/SIGNATURE_SPEC.md; DSSE, protocol.md. Used by image.py, made by
app/composition.py. Thread rule: any thread; blocks on the network.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import LRUCache, TTLCache

from regfs.errors import AccessDenied, BadConfiguration, BadContent, NotFound, TooLarge, Unsupported
from regfs.images.judging.keys import is_signed_by, load_key
from regfs.images.repository import Repository
from regfs.model.attestations.documents import (
    IN_TOTO_PAYLOAD,
    Envelope,
    bundle_envelope,
    cosign_payload,
    statement_in,
)
from regfs.model.attestations.kinds import BUNDLE, COSIGN_SIGN, SIMPLE_SIGNING
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest, parse_manifest
from regfs.model.signature_policy import Policy, Requirement, is_repository

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

log = logging.getLogger(__name__)

_MOST_SIGNATURES = 64
_MOST_BYTES = 4 << 20
_ACCEPTED_KEPT = 4096
_REFUSED_KEPT = 256
_REFUSED_S = 10.0
_SIGNATURE = "dev.cosignproject.cosign/signature"
_FAILURES = (BadContent, NotFound, TooLarge, Unsupported)


class Judge:
    """Judges by *policy*. Its keys are read when they are first needed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._accepted: LRUCache[object, bool] = LRUCache(_ACCEPTED_KEPT)
        self._refused: TTLCache[object, str] = TTLCache(_REFUSED_KEPT, _REFUSED_S)
        self._keys: dict[Requirement, tuple[PublicKeyTypes, ...]] = {}

    def judge(self, repository: Repository, digest: Digest) -> None:
        """Return where the manifest *digest* may be shown. Blocks on the network where a signature is needed.

        Raises AccessDenied with the reason, also where a key cannot be read, and what a network brings.
        """
        requirements = self._policy.requirements(repository.name, str(digest))
        if all(each.accepts_anything for each in requirements):
            return
        key = (repository.name, digest, repository.tags.refreshes)
        with self._lock:
            if key[:2] in self._accepted:
                return
            reason = self._refused.get(key)
        if reason is None:
            reason = self._reason(requirements, repository, digest)
            with self._lock:
                if reason:
                    self._refused[key] = reason
                else:
                    self._accepted[key[:2]] = True
        if reason:
            raise AccessDenied(
                f"{repository.name}@{digest}: the policy {self._policy.name} does not allow it: {reason}"
            )

    def _reason(self, requirements: tuple[Requirement, ...], repository: Repository, digest: Digest) -> str:
        """Return why the image is refused, "" where it is accepted."""
        for requirement in requirements:
            if requirement.refusal:
                return requirement.refusal
            try:
                if requirement.has_keys and not self._is_signed(requirement, repository, digest):
                    return "it has no signature by a key of the policy that names this digest and repository"
            except BadConfiguration as error:
                return str(error)
        return ""

    def _is_signed(self, requirement: Requirement, repository: Repository, digest: Digest) -> bool:
        keys = self._keys_of(requirement)
        return any(_is_by(keys, layer, repository, digest, requirement) for layer in _signatures(repository, digest))

    def verified_by(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return the name of the policy where *layer* is a signature of *digest* by a key of it, "" where it is not.

        Blocks on the network for the blob. Raises what a network brings.
        """
        wanted = [each for each in self._policy.requirements(repository.name, str(digest)) if each.has_keys]
        try:
            found = any(_is_by(self._keys_of(each), layer, repository, digest, each) for each in wanted)
        except BadConfiguration as error:
            log.warning("%s", error)
            return ""
        return self._policy.name if found else ""

    def _keys_of(self, requirement: Requirement) -> tuple[PublicKeyTypes, ...]:
        with self._lock:
            known = self._keys.get(requirement)
        if known is None:
            texts = [(path, _read(path)) for path in requirement.key_paths]
            texts += [(f"a key in {self._policy.name}", key) for key in requirement.keys]
            known = tuple(load_key(pem, name) for name, pem in texts)
            with self._lock:
                self._keys[requirement] = known
        return known


def _signatures(repository: Repository, digest: Digest) -> Iterator[Descriptor]:
    """Yield the layers that may be signatures of *digest*."""
    for tag in repository.tags.about(digest):
        if tag.endswith(".sig"):
            try:
                found = repository.tags.resolve(tag).digest
            except NotFound:
                continue
            yield from _layers(repository, found)
    listed = [each for each in repository.referrers.listed(digest) if (each.artifact_type or "").startswith(BUNDLE)]
    for referrer in listed[:_MOST_SIGNATURES]:
        yield from _layers(repository, referrer.digest)


def _layers(repository: Repository, digest: Digest) -> tuple[Descriptor, ...]:
    try:
        document = repository.manifests.document(digest)
        parsed = parse_manifest(document.content, content_type=document.media_type)
    except _FAILURES as error:
        log.info("%s@%s is no signature: %s", repository.name, digest, error)
        return ()
    return parsed.layers[:_MOST_SIGNATURES] if isinstance(parsed, Manifest) else ()


def _is_by(
    keys: tuple[PublicKeyTypes, ...], layer: Descriptor, repository: Repository, digest: Digest, wanted: Requirement
) -> bool:
    """Tell whether *layer* is a signature of *digest* by one of *keys*."""
    is_bundle = layer.media_type.startswith(BUNDLE)
    if not is_bundle and layer.media_type != SIMPLE_SIGNING:
        return False
    try:
        content = repository.blobs.small(layer, at_most=_MOST_BYTES)
        if is_bundle:
            return _is_signed_statement(keys, bundle_envelope(content), digest)
        signature = base64.b64decode(layer.annotations.get(_SIGNATURE, ""), validate=True)
        if not any(is_signed_by(key, signature, content) for key in keys):
            return False
        payload = cosign_payload(content)
    except (*_FAILURES, binascii.Error, ValueError) as error:
        log.info("%s@%s: the signature %s is of no use: %s", repository.name, digest, layer.digest, error)
        return False
    return payload.digest == str(digest) and is_repository(payload.reference, repository.name, wanted.repository)


def _is_signed_statement(keys: tuple[PublicKeyTypes, ...], envelope: Envelope, digest: Digest) -> bool:
    if envelope.payload_type != IN_TOTO_PAYLOAD or len(envelope.signatures) != 1:
        return False
    if not any(is_signed_by(key, envelope.signatures[0], envelope.signed_bytes) for key in keys):
        return False
    statement = statement_in(envelope.payload)
    return statement.predicate_type == COSIGN_SIGN and str(digest) in statement.subjects


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise BadConfiguration(f"the key {path} of the policy cannot be read: {error.strerror}") from None
