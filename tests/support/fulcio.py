"""Certificates as Fulcio issues them, and the keys of their holders; made by the package cryptography. Values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

EMAIL, ISSUER = "alice@example.org", "https://accounts.example.org"
SIGNED_S = 1_790_000_000
"""When certificates are issued and signatures logged: so long ago that no certificate is valid today."""
_NO_USAGE = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
    False,
)


def new_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def signed(key: EllipticCurvePrivateKey, message: bytes) -> bytes:
    return key.sign(message, ECDSA(SHA256()))


def spki(key: EllipticCurvePublicKey, encoding: Encoding = Encoding.DER) -> bytes:
    return key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def time_of(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @staticmethod
    def make(name: str, *, by: Authority | None = None, at_s: int = SIGNED_S) -> Authority:
        """Return a root, or an authority that *by* has issued."""
        key, subject = new_key(), _named(name)
        issuer = subject if by is None else by.certificate.subject
        certificate = (
            certificate_of(key.public_key(), subject, issuer, at_s - 86_400, 10 * 86_400)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage(signs=False), critical=True)
            .add_extension(authority_key(key if by is None else by.key), critical=False)
            .sign(key if by is None else by.key, SHA256())
        )
        return Authority(key, certificate)


@dataclass(frozen=True)
class Signer:
    """A key with a certificate."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


def certificate_of(
    key: EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, at_s: int, lasts_s: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key)
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(time_of(at_s))
        .not_valid_after(time_of(at_s) + timedelta(seconds=lasts_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=signs, key_cert_sign=not signs, crl_sign=not signs, **_NO_USAGE)


def authority_key(key: EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def extension_of(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(ObjectIdentifier(oid), value)


def der_of(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content
