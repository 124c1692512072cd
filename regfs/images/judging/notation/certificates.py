"""Checks the certificate chains in notation's signatures, and signatures by their keys.

The chain is in the signature, ordered, with its root. Basic constraints, key usages and validity are checked, other
extensions are not. The key of the first certificate decides the algorithm, and the signature's `alg` must be the same.
Source: Notary Project, signature-specification.md, "Signature Algorithm Requirements" and "Certificate Requirements".
Used by rules.py. Thread rule: functions; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from regfs.errors import BadContent
from regfs.model.attestations.notary import NotarySignature

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_HASHES = ("sha256", "sha384", "sha512")
_CURVES = {256: "ES256", 384: "ES384", 521: "ES512"}
_MODULI = {2048: "PS256", 3072: "PS384", 4096: "PS512"}
_USAGES = ("key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
_NAMES = {
    "C": "2.5.4.6", "ST": "2.5.4.8", "L": "2.5.4.7", "O": "2.5.4.10", "OU": "2.5.4.11", "CN": "2.5.4.3",
    "STREET": "2.5.4.9", "POSTALCODE": "2.5.4.17", "SERIALNUMBER": "2.5.4.5",
}  # fmt: skip


def load_chain(chain: Sequence[bytes]) -> list[Certificate]:
    """Parse the certificates *chain*. Raises BadContent."""
    from cryptography.x509 import load_der_x509_certificate

    if not chain:
        raise BadContent("it has no certificate")
    try:
        return [load_der_x509_certificate(each) for each in chain]
    except ValueError as error:
        raise BadContent(f"a certificate of it cannot be read: {error}") from None


def check_signature(certificate: Certificate, signed: NotarySignature) -> None:
    """Raise BadContent unless the key of *certificate* made the signature, with the key's algorithm."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadContent(f"the key of its certificate cannot be read: {error}") from None
    names = _CURVES if isinstance(key, EllipticCurvePublicKey) else _MODULI if isinstance(key, RSAPublicKey) else {}
    wanted = names.get(getattr(key, "key_size", 0), "")
    if not wanted or signed.algorithm != wanted:
        raise BadContent(f"its algorithm is {signed.algorithm[:20]!r}, its key stands for {wanted or 'none'}")
    hashed = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[wanted[2:]]
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signed.signature, signed.signed_bytes, PSS(MGF1(hashed), hashed.digest_size), hashed)
        elif isinstance(key, EllipticCurvePublicKey):
            half = (key.key_size + 7) // 8
            if len(signed.signature) != 2 * half:
                raise BadContent("its signature has another length than its key gives")
            r, s = (int.from_bytes(each) for each in (signed.signature[:half], signed.signature[half:]))
            key.verify(encode_dss_signature(r, s), signed.signed_bytes, ECDSA(hashed))
    except InvalidSignature:
        raise BadContent("the key of its certificate has not made it") from None


def check_chain(chain: Sequence[Certificate], trusted: Sequence[Certificate]) -> None:
    """Raise BadContent unless *chain* is for signing code, ends in a root, and has one of *trusted* in it."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.x509 import ExtensionNotFound

    try:
        _check_leaf(chain[0])
        for depth, certificate in enumerate(chain):
            issuer = chain[min(depth + 1, len(chain) - 1)]
            if certificate.signature_hash_algorithm is None or certificate.signature_hash_algorithm.name not in _HASHES:
                raise BadContent("a certificate of it is signed with a hash that is too weak")
            certificate.verify_directly_issued_by(issuer)
            if depth:
                _check_authority(certificate, depth - 1)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, ExtensionNotFound) as error:
        reason = str(error) or type(error).__name__
        raise BadContent(f"its certificates are not a chain that ends in a root: {reason}") from None
    if not any(each in trusted for each in chain):
        raise BadContent(f"its certificate is of {name_of(chain[-1])}, which is in no trust store of the policy")


def check_identity(certificate: Certificate, wanted: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Raise BadContent unless the subject of *certificate* has all attributes of one of *wanted*."""
    subject: dict[str, list[object]] = {}
    for attribute in certificate.subject:
        subject.setdefault(attribute.oid.dotted_string, []).append(attribute.value)
    for identity in wanted:
        if all(subject.get(_NAMES.get(key, key)) == [value] for key, value in identity):
            return
    raise BadContent(f"its signer is {name_of(certificate)}, whom the policy does not name")


def check_validity(chain: Sequence[Certificate], first_s: float, last_s: float) -> None:
    """Raise BadContent unless all of *chain* is valid from *first_s* to *last_s*, in seconds since 1970."""
    for certificate in chain:
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if not (begin <= first_s and last_s <= end):
            raise BadContent(
                f"the certificate of {name_of(certificate)} is valid from {_text(begin)} to {_text(end)}, "
                f"not at {_text(first_s)}"
            )


def check_revocation(chain: Sequence[Certificate]) -> None:
    """Raise BadContent if revocation of a certificate of *chain* can only be checked on the network."""
    from cryptography.x509 import AuthorityInformationAccess, CRLDistributionPoints, ExtensionNotFound
    from cryptography.x509.oid import AuthorityInformationAccessOID

    for certificate in chain[:-1]:
        try:
            named = [each.value for each in certificate.extensions if isinstance(each.value, CRLDistributionPoints)]
            access = certificate.extensions.get_extension_for_class(AuthorityInformationAccess).value
        except ExtensionNotFound:
            access = None
        except ValueError as error:
            raise BadContent(f"a certificate of it cannot be read: {error}") from None
        ocsp = [each for each in access or () if each.access_method == AuthorityInformationAccessOID.OCSP]
        if named or ocsp:
            raise BadContent(
                f"whether the certificate of {name_of(certificate)} is revoked only its authority could tell, which "
                'regfs does not ask: let the trust policy override "revocation" with "log" or "skip"'
            )


def name_of(certificate: Certificate) -> str:
    """Return the subject of *certificate*, for messages."""
    try:
        return certificate.subject.rfc4514_string()[:300] or "a certificate without a name"
    except ValueError:
        return "a certificate whose name cannot be read"


def _check_leaf(certificate: Certificate) -> None:
    from cryptography.x509 import BasicConstraints, ExtendedKeyUsage, ExtensionNotFound, KeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

    usage = certificate.extensions.get_extension_for_class(KeyUsage)
    others = [name for name in _USAGES if getattr(usage.value, name)]
    if not usage.critical or not usage.value.digital_signature or others:
        raise BadContent("its certificate is not for signatures alone")
    for extension in certificate.extensions:
        if isinstance(extension.value, BasicConstraints) and extension.value.ca:
            raise BadContent("its certificate is an authority's")
    try:
        purposes = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return
    wrong = (
        Usage.ANY_EXTENDED_KEY_USAGE, Usage.SERVER_AUTH, Usage.CLIENT_AUTH, Usage.EMAIL_PROTECTION, Usage.TIME_STAMPING,
    )  # fmt: skip
    if any(each in purposes for each in wrong):
        raise BadContent("its certificate is not for signing code")


def _check_authority(certificate: Certificate, below: int) -> None:
    """Raise BadContent unless *certificate* is an authority's that may have *below* authorities under it."""
    from cryptography.x509 import BasicConstraints, KeyUsage

    basic = certificate.extensions.get_extension_for_class(BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(KeyUsage)
    if not (basic.critical and basic.value.ca and usage.critical and usage.value.key_cert_sign):
        raise BadContent(f"{name_of(certificate)} is not an authority")
    if basic.value.path_length is not None and basic.value.path_length < below:
        raise BadContent(f"{name_of(certificate)} may have no authority of that depth below it")


def _text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
