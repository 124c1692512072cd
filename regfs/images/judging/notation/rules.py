"""NotationRules: applies a trust policy of notation to an image.

    skip         every image is shown, no signature is needed
    audit        an existing signature must be intact and of the image; all other faults are only logged
    permissive   a signature by a signer whom the policy names is needed
    strict       its time, expiry and revocation are enforced, too

A signature is a manifest that refers to the image. One in JWS is verified; a COSE envelope is refused. Sources: Notary
Project, trust-store-trust-policy.md, "Signature Verification". Used by judge.py, made by app/policy.py. Thread rule:
any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import BadContent, NotFound, TooLarge, Unsupported
from regfs.images.judging.containers_policy.found_signatures import MOST_BYTES, layers_of
from regfs.images.judging.judge import reasons_text
from regfs.images.judging.keys import require_package
from regfs.images.judging.notation.certificates import (
    check_chain,
    check_identity,
    check_revocation,
    check_signature,
    check_validity,
    load_chain,
    name_of,
)
from regfs.images.judging.notation.timestamps import stamped_between
from regfs.images.judging.notation.trust_store import load_store
from regfs.images.repository import Repository
from regfs.model.attestations.kinds import COSE, JWS, NOTARY
from regfs.model.attestations.notary import X509, NotarySignature, notary_signature
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.notation_policy import (
    AUDIT,
    AUTHENTICITY,
    CA,
    EXPIRY,
    REVOCATION,
    SIGNING_AUTHORITY,
    SKIP,
    TIMESTAMP,
    TSA,
    NotationPolicy,
    TrustPolicy,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

log = logging.getLogger(__name__)

_MOST_SIGNATURES = 64
_FAILURES = (BadContent, NotFound, TooLarge, Unsupported)


class _Verified(NamedTuple):
    """The signer's name; the *reason* why the signature is refused, "" if it is not; and what is only logged."""

    signer: str
    reason: str
    doubts: dict[str, str]


class NotationRules:
    """The rules of *policy*. The trust store is read at the first use. *clock* returns seconds since 1970."""

    def __init__(self, policy: NotationPolicy, *, clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._stores: dict[tuple[str, str], tuple[Certificate, ...]] = {}

    @property
    def name(self) -> str:
        """The path of the policy."""
        return self._policy.name

    def accepts_anything(self, repository: Repository, _digest: Digest) -> bool:
        """Return whether no signature is needed. Makes no request."""
        policy = self._policy.of(str(repository.name))
        return policy is not None and policy.level == SKIP

    def refusal(self, repository: Repository, digest: Digest) -> str:
        """Return the reason why the manifest *digest* may not be shown, "" if it may. See Rules."""
        policy = self._policy.of(str(repository.name))
        if policy is None:
            return f"no trust policy has {repository.name} in its registryScopes"
        reasons: list[str] = []
        for layer in _signature_layers(repository, digest):
            found = self._verified(policy, repository, digest, layer)
            if not found.reason:
                for doubt in found.doubts.values():
                    log.warning("%s@%s: the trust policy %s logs: %s", repository.name, digest, policy.name, doubt)
                return ""
            log.info("%s@%s: the signature %s does not count: %s", repository.name, digest, layer.digest, found.reason)
            reasons.append(f"{str(layer.digest)[:19]}: {found.reason}")
        if policy.level == AUDIT and not reasons:
            log.warning("%s@%s is not signed; the trust policy %s audits only", repository.name, digest, policy.name)
            return ""
        unread = max(0, len(_listed(repository, digest)) - _MOST_SIGNATURES)
        return (
            f"it has no signature that the trust policy {policy.name} accepts ({reasons_text(reasons, unread=unread)})"
        )

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why". See Rules."""
        policy = self._policy.of(str(repository.name))
        if policy is None or policy.level == SKIP:
            return "no: the trust policy wants no signature of this image"
        if layer.media_type not in (JWS, COSE):
            return "no: a trust policy of notation says nothing of other signatures than notation's"
        found = self._verified(policy, repository, digest, layer)
        doubts = "; ".join(found.doubts.values())
        if found.reason or AUTHENTICITY in found.doubts:
            return f"no: {found.reason or doubts}"
        return f"by {found.signer}, as {policy.name} in {self.name} wants{f', though {doubts}' if doubts else ''}"

    def _verified(self, policy: TrustPolicy, repository: Repository, digest: Digest, layer: Descriptor) -> _Verified:
        """Verify *layer* as a signature of *digest* by *policy*."""
        require_package()
        try:
            if layer.media_type == COSE:
                raise Unsupported("it is a COSE envelope, which regfs does not verify: sign with the format jws")
            signed = notary_signature(repository.blobs.small(layer, at_most=MOST_BYTES))
            chain = load_chain(signed.chain)
            check_signature(chain[0], signed)
            if signed.digest != str(digest):
                raise BadContent(f"it is of {signed.digest[:100]}")
            doubts = self._doubts(policy, signed, chain)
        except _FAILURES as error:
            return _Verified("", str(error), {})
        return _Verified(name_of(chain[0]), "", doubts)

    def _doubts(self, policy: TrustPolicy, signed: NotarySignature, chain: list[Certificate]) -> dict[str, str]:
        """Return the failed validations that *policy* only logs. Raises BadContent for one that it enforces."""
        doubts = {}
        for validation, check in self._checks(policy, signed, chain):
            try:
                check()
            except BadContent as error:
                if validation in policy.enforced:
                    raise
                doubts[validation] = str(error)
        return doubts

    def _checks(
        self, policy: TrustPolicy, signed: NotarySignature, chain: list[Certificate]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        yield AUTHENTICITY, partial(self._check_signer, policy, signed, chain)
        yield EXPIRY, partial(_check_expiry, signed, self._clock())
        yield TIMESTAMP, partial(self._check_time, policy, signed, chain)
        if not policy.is_revocation_skipped:
            yield REVOCATION, partial(check_revocation, chain)

    def _check_signer(self, policy: TrustPolicy, signed: NotarySignature, chain: list[Certificate]) -> None:
        check_chain(chain, self._trusted(policy, CA if signed.scheme == X509 else SIGNING_AUTHORITY))
        if policy.identities is not None:
            check_identity(chain[0], policy.identities)

    def _check_time(self, policy: TrustPolicy, signed: NotarySignature, chain: list[Certificate]) -> None:
        """Raise BadContent unless the certificates were valid at the signing; if no time is proved, now."""
        now_s = self._clock()
        if signed.authentic_s is not None:
            check_validity(chain, signed.authentic_s, signed.authentic_s)
            return
        roots = self._trusted(policy, TSA) if signed.timestamp else ()
        if not roots:
            check_validity(chain, now_s, now_s)
            return
        if policy.timestamp_after_expiry:
            try:
                check_validity(chain, now_s, now_s)
                return
            except BadContent:
                pass
        check_validity(chain, *stamped_between(signed.timestamp, signed.signature, roots))

    def _trusted(self, policy: TrustPolicy, kind: str) -> tuple[Certificate, ...]:
        found: list[Certificate] = []
        for store in policy.stores:
            if store[0] != kind:
                continue
            with self._lock:
                known = self._stores.get(store)
            if known is None:
                known = load_store(self.name, *store)
                with self._lock:
                    self._stores[store] = known
            found += known
        return tuple(found)


def _check_expiry(signed: NotarySignature, now_s: float) -> None:
    if signed.expiry_s is not None and now_s >= signed.expiry_s:
        raise BadContent(f"it counted until {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(signed.expiry_s))}")


def _signature_layers(repository: Repository, digest: Digest) -> Iterator[Descriptor]:
    """Yield the layers that may be signatures of the manifest *digest*."""
    for referrer in _listed(repository, digest)[:_MOST_SIGNATURES]:
        for layer in layers_of(repository, referrer.digest)[:1]:
            if layer.media_type in (JWS, COSE):
                yield layer


def _listed(repository: Repository, digest: Digest) -> list[Descriptor]:
    """Return the referrers that may be signatures of the manifest *digest*. Lists may lack artifact types."""
    return [each for each in repository.referrers.listed(digest) if each.artifact_type in (NOTARY, "", None)]
