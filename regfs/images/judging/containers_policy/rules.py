"""ContainersRules: applies a containers-policy.json to an image.

    reject, GPG …      refused, with the words of the policy (model/signature_policy.py)
    a key, Fulcio      needs a signature by one of them, in cosign's tag sha256-<hex>.sig or in a sigstore bundle that
                       refers to the image. It must name this digest; one in cosign's tag, the repository too

The key or the certificate decides; a key id in an envelope is ignored. Sources: containers-policy.json(5); cosign,
specs/SIGNATURE_SPEC.md; DSSE, protocol.md. Used by judge.py, made by app/policy.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading

from regfs.errors import BadContent, NotFound, TooLarge, Unsupported
from regfs.images.judging.containers_policy.found_signatures import (
    MOST_BYTES,
    check_purpose,
    check_subject,
    count_unread,
    read_signature,
    signature_layers,
)
from regfs.images.judging.containers_policy.signers import Signers, check_signer, load_signers
from regfs.images.judging.judge import reasons_text
from regfs.images.repository import Repository
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.signature_policy import Policy, Requirement

log = logging.getLogger(__name__)

_FAILURES = (BadContent, NotFound, TooLarge, Unsupported)


class ContainersRules:
    """The rules of *policy*; *trusted_root* is a path or "". Files are read at the first use."""

    def __init__(self, policy: Policy, *, trusted_root: str = "") -> None:
        self._policy = policy
        self._trusted_root = trusted_root
        self._lock = threading.Lock()
        self._signers: dict[Requirement, Signers] = {}

    @property
    def name(self) -> str:
        """The path of the policy."""
        return self._policy.name

    def accepts_anything(self, repository: Repository, digest: Digest) -> bool:
        """Return whether no signature is needed. Makes no request."""
        return all(each.accepts_anything for each in self._policy.requirements(repository.name, str(digest)))

    def refusal(self, repository: Repository, digest: Digest) -> str:
        """Return the reason why the manifest *digest* may not be shown, "" if it may. See Rules."""
        for requirement in self._policy.requirements(repository.name, str(digest)):
            reason = requirement.refusal
            if requirement.wants_signature and not reason:
                reason = self._unsigned(requirement, repository, digest)
            if reason:
                return reason
        return ""

    def _unsigned(self, requirement: Requirement, repository: Repository, digest: Digest) -> str:
        """Return why *requirement* accepts none of the signatures, "" if it accepts one."""
        signers, reasons = self._signers_of(requirement), []
        for layer in signature_layers(repository, digest):
            by, reason = _verified(signers, requirement, repository, digest, layer, is_for_use=True)
            if by:
                return ""
            log.info("%s@%s: the signature %s does not count: %s", repository.name, digest, layer.digest, reason)
            reasons.append(f"{str(layer.digest)[:19]}: {reason}")
        wanted = f"it has no signature by {requirement.signer} that names this digest and repository"
        return f"{wanted} ({reasons_text(reasons, unread=count_unread(repository, digest))})"

    def verification(self, repository: Repository, digest: Digest, layer: Descriptor) -> str:
        """Return what verifies *layer* as a signature of the manifest *digest*: "by …", or "no: why". See Rules."""
        reason = "the policy wants no signature of this image"
        for requirement in self._policy.requirements(repository.name, str(digest)):
            if not requirement.wants_signature:
                continue
            by, reason = _verified(self._signers_of(requirement), requirement, repository, digest, layer)
            if by:
                return f"by {by}, as {self.name} wants"
        return f"no: {reason}"

    def _signers_of(self, requirement: Requirement) -> Signers:
        with self._lock:
            known = self._signers.get(requirement)
        if known is None:
            known = load_signers(requirement, self.name, self._trusted_root)
            with self._lock:
                self._signers[requirement] = known
        return known


def _verified(
    signers: Signers, requirement: Requirement, repository: Repository, digest: Digest, layer: Descriptor, *,
    is_for_use: bool = False,
) -> tuple[str, str]:  # fmt: skip
    """Return which of *signers* made *layer*, a signature of *digest*, and ""; or "" and the reason why none did.

    *is_for_use*: attestations do not count, because the signature must say that the image may be used.
    """
    try:
        content = repository.blobs.small(layer, at_most=MOST_BYTES)
        signature = read_signature(content, layer)
        by = check_signer(signers, signature, content)
        check_subject(signature, repository, digest, requirement.repository)
        if is_for_use:
            check_purpose(signature)
    except _FAILURES as error:
        return "", str(error)
    return by, ""
