"""Checks certificates of signers: whether an authority of the policy issued one, and whom it names.

A certificate of Fulcio's is valid for ten minutes, so it must be valid at the time of the signature, which a log or a
timestamp proves. Sources: RFC 5280, section 6; Fulcio, docs/certificate-specification.md and oid-info.md;
containers/image, which checks certificates in the same way. Used by signers.py. Thread rule: functions; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from regfs.errors import BadContent
from regfs.model.signature_policy import Fulcio

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_OLD_ISSUER, _ISSUER = "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8"
_UTF8 = 0x0C


def load_der(der: bytes) -> Certificate:
    """Return the certificate *der*. Raises BadContent."""
    from cryptography.x509 import load_der_x509_certificate

    try:
        return load_der_x509_certificate(der)
    except ValueError as error:
        raise BadContent(f"its certificate cannot be read: {error}") from None


def check_chain(
    certificate: Certificate, chain: Sequence[bytes], authorities: Sequence[Certificate], at_s: float
) -> None:
    """Raise BadContent unless *certificate* is for signing code, issued by *authorities*, and valid at *at_s*.

    *at_s* is in seconds since 1970. *chain* may have intermediate certificates (DER); nothing in it is trusted.
    """
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, KeyUsage, UnsupportedGeneralNameType
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

    ca = ExtensionPolicy.webpki_defaults_ca().may_be_present(ExtendedKeyUsage, Criticality.NON_CRITICAL, None)
    leaf = ExtensionPolicy.webpki_defaults_ee().may_be_present(ExtendedKeyUsage, Criticality.NON_CRITICAL, None)
    builder = PolicyBuilder().store(Store(list(authorities))).time(datetime.fromtimestamp(at_s, UTC))
    verifier = builder.extension_policies(ca_policy=ca, ee_policy=leaf).build_client_verifier()
    try:
        verifier.verify(certificate, [load_der(each) for each in chain])
        usages = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
        signs = certificate.extensions.get_extension_for_class(KeyUsage).value.digital_signature
    except (VerificationError, UnsupportedGeneralNameType, ExtensionNotFound, ValueError) as error:
        raise BadContent(
            f"its certificate is not one that an authority of the policy has issued for {_text(at_s)}: {error}"
        ) from None
    if ExtendedKeyUsageOID.CODE_SIGNING not in usages or not signs:
        raise BadContent("its certificate is not for signing code")


def check_identity(certificate: Certificate, wanted: Fulcio) -> None:
    """Raise BadContent unless *certificate* has the wanted e-mail address and issuer."""
    from cryptography.x509 import ExtensionNotFound, RFC822Name, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        emails = names.get_values_for_type(RFC822Name)
        issuer = _issuer(certificate)
    except (ExtensionNotFound, ValueError) as error:
        raise BadContent(f"its certificate names no signer: {error}") from None
    if issuer != wanted.issuer:
        raise BadContent(f"its signer is vouched for by {issuer[:200]!r}, not by {wanted.issuer!r}")
    if wanted.email not in emails:
        named = ", ".join(map(str, emails))[:200] or "no e-mail address"
        raise BadContent(f"its signer is {named}, not {wanted.email}")


def _issuer(certificate: Certificate) -> str:
    """Return the issuer of the signer's identity. The old extension has plain text, the new one a UTF8String."""
    found = set()
    for extension in certificate.extensions:
        value = getattr(extension.value, "value", b"")
        if extension.oid.dotted_string == _OLD_ISSUER:
            found.add(value)
        elif extension.oid.dotted_string == _ISSUER:
            if len(value) < 2 or value[0] != _UTF8 or value[1] != len(value) - 2:
                raise BadContent("its certificate has an issuer that is not text of up to 127 bytes")
            found.add(value[2:])
    if len(found) != 1:
        raise BadContent(f"its certificate names {len(found)} issuers of the signer's identity")
    return bytes(found.pop()).decode("utf-8", "replace")


def _text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
