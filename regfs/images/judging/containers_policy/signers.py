"""Checks whether a signature is by one of the signers that a requirement of the policy accepts.

    keys               the signature is by one of them
    Fulcio             the certificate is for the policy's e-mail address, issued by its authority, and was valid when
                       the signature was logged, which the log's promise proves
    + --trusted-root   bundles need all that sigstore asks for: log, timestamps, certificate transparency
    + Rekor's keys     the log must have promised to keep the signature

found_signatures.py checks that the image is what was signed. Used by rules.py. Thread rule: values; any thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import BadContent
from regfs.images.judging.containers_policy.certificates import check_chain, check_identity, load_der
from regfs.images.judging.containers_policy.log_promises import logged_s
from regfs.images.judging.containers_policy.trusted_root import check_bundle, load_verifier
from regfs.images.judging.keys import der_of_key, is_signed_by, load_certificates, load_keys
from regfs.model.attestations.signatures import ENVELOPE, Signature
from regfs.model.signature_policy import Fulcio, Requirement

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier


class Signers(NamedTuple):
    """The signers of one requirement; *verifier* is there if a trusted root is used."""

    keys: tuple[PublicKeyTypes, ...]
    fulcio: Fulcio | None
    authorities: tuple[Certificate, ...]
    log_keys: tuple[PublicKeyTypes, ...]
    verifier: Verifier | None


def load_signers(requirement: Requirement, policy: str, trusted_root: str) -> Signers:
    """Load the signers of *requirement*, from the policy file *policy*; *trusted_root* is a path or "".

    Raises BadConfiguration if a file or a package is missing, or a file has invalid content.
    """
    fulcio = requirement.fulcio
    keys, log_keys = load_keys(requirement.keys, policy), load_keys(requirement.log, policy)
    if fulcio is None:
        return Signers(keys, None, (), log_keys, None)
    authorities = load_certificates(fulcio.authorities, policy)
    return Signers(
        keys, fulcio, authorities, log_keys, load_verifier(trusted_root, authorities) if trusted_root else None
    )


def check_signer(signers: Signers, signature: Signature, content: bytes) -> str:
    """Return which of *signers* made *signature*, in words; *content* is the signature's blob.

    Raises BadContent with the reason if none did.
    """
    if signers.fulcio is None:
        return _check_key(signers, signature)
    if not signature.certificate:
        raise BadContent("a key has signed it, and the policy wants a certificate")
    if signers.verifier is not None and signature.kind == ENVELOPE:
        certificate, *signed = check_bundle(signers.verifier, content, signers.fulcio)
        check_identity(certificate, signers.fulcio)
        if signed != [signature.payload_type, signature.payload]:  # two JSON parsers disagree about the envelope
            raise BadContent("its bundle has two envelopes")
        return f"{signers.fulcio}, by the trusted root"
    return _check_certificate(signers, signers.fulcio, signature)


def _check_key(signers: Signers, signature: Signature) -> str:
    key = next((each for each in signers.keys if is_signed_by(each, signature.signature, signature.message)), None)
    if key is None:
        raise BadContent("no key of the policy has made it")
    if not signers.log_keys:
        return "a key"
    return f"a key, logged {_time(logged_s(signature, der_of_key(key), signers.log_keys))}"


def _check_certificate(signers: Signers, wanted: Fulcio, signature: Signature) -> str:
    if signature.entry is None and signature.kind == ENVELOPE:
        raise BadContent("no log has promised to keep it; its timestamp is verified with a --trusted-root FILE")
    at_s = logged_s(signature, signature.certificate, signers.log_keys)
    certificate = load_der(signature.certificate)
    check_chain(certificate, signature.chain, signers.authorities, at_s)
    check_identity(certificate, wanted)
    if not is_signed_by(certificate.public_key(), signature.signature, signature.message):
        raise BadContent("its certificate has not made it")
    return f"{wanted}, logged {_time(at_s)}"


def _time(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
