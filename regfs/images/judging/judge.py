"""Judges images by the user's policy, on the digest that a name means, before anything of them is shown.

    reject, GPG …      refused, with the words of the policy (model/signature_policy.py)
    a key, Fulcio      a signature by them is looked for: cosign's tag sha256-<hex>.sig, and sigstore bundles that refer
                       to the image. What is signed must name this digest; of a tag's, the repository too

The key or the certificate decides, a key id in an envelope does not. What was accepted stays so until the process ends:
a signature that is gone later disturbs no process inside. A refusal is remembered for seconds.

Sources: containers-policy.json(5); cosign, specs/SIGNATURE_SPEC.md; DSSE, protocol.md. Used by image.py, made by
app/policy.py. Thread rule: any thread; blocks on the network.
"""

from __future__ import annotations

import logging
import threading

from cachetools import LRUCache, TTLCache

from regfs.errors import AccessDenied, BadConfiguration, BadContent, NotFound, TooLarge, Unsupported
from regfs.images.judging.found_signatures import MOST_BYTES, check_subject, read_signature, signature_layers
from regfs.images.judging.signers import Signers, check_signer, load_signers
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.signature_policy import Policy, Requirement

log = logging.getLogger(__name__)

_ACCEPTED_KEPT = 4096
_REFUSED_KEPT = 256
_REFUSED_S = 10.0
_MOST_REASONS = 3
_FAILURES = (BadContent, NotFound, TooLarge, Unsupported)


class Judge:
    """Judges by *policy*; *trusted_root* is the path of a trusted_root.json, or "". Files are read when needed."""

    def __init__(self, policy: Policy, *, trusted_root: str = "") -> None:
        self._policy = policy
        self._trusted_root = trusted_root
        self._lock = threading.Lock()
        self._accepted: LRUCache[object, bool] = LRUCache(_ACCEPTED_KEPT)
        self._refused: TTLCache[object, str] = TTLCache(_REFUSED_KEPT, _REFUSED_S)
        self._signers: dict[Requirement, Signers] = {}

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
                reason = self._unsigned(requirement, repository, digest) if requirement.wants_signature else ""
            except BadConfiguration as error:
                return str(error)
            if reason:
                return reason
        return ""

    def _unsigned(self, requirement: Requirement, repository: Repository, digest: Digest) -> str:
        """Return why *requirement* accepts no signature that there is, "" where it accepts one."""
        signers, reasons = self._signers_of(requirement), []
        for layer in signature_layers(repository, digest):
            by, reason = _verified(signers, requirement, repository, digest, layer)
            if by:
                return ""
            log.info("%s@%s: the signature %s does not count: %s", repository.name, digest, layer.digest, reason)
            reasons.append(f"{str(layer.digest)[:19]}: {reason}")
        found = "; ".join(reasons[:_MOST_REASONS]) or "there is none"
        more = f"; and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
        return f"it has no signature by {requirement.signer} that names this digest and repository ({found}{more})"

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why".

        Blocks on the network for the blob. Raises what a network brings.
        """
        reason = "the policy wants no signature of this image"
        for requirement in self._policy.requirements(repository.name, str(digest)):
            if not requirement.wants_signature:
                continue
            try:
                by, reason = _verified(self._signers_of(requirement), requirement, repository, digest, layer)
            except BadConfiguration as error:
                by, reason = "", str(error)
            if by:
                return f"by {by}, as {self._policy.name} wants"
        return f"no: {reason}"

    def _signers_of(self, requirement: Requirement) -> Signers:
        with self._lock:
            known = self._signers.get(requirement)
        if known is None:
            known = load_signers(requirement, self._policy.name, self._trusted_root)
            with self._lock:
                self._signers[requirement] = known
        return known


def _verified(
    signers: Signers, requirement: Requirement, repository: Repository, digest: Digest, layer: Descriptor
) -> tuple[str, str]:
    """Return who has signed *digest* by *layer*, "" where it is none of *signers*; and the reason for that."""
    try:
        content = repository.blobs.small(layer, at_most=MOST_BYTES)
        signature = read_signature(content, layer)
        by = check_signer(signers, signature, content)
        check_subject(signature, repository, digest, requirement.repository)
    except _FAILURES as error:
        return "", str(error)
    return by, ""
