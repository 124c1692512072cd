"""Loads public keys and certificates, and verifies signatures by them, with the package cryptography.

The package is imported only if a policy has keys. Keys and hashes are those that containers/image accepts: ECDSA and
RSA (PKCS #1 v1.5) with SHA-256, Ed25519. Used by the other modules of judging/. Thread rule: values; any thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regfs.errors import BadConfiguration
from regfs.model.signature_policy import Pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate

_MOST_BYTES = 1 << 20
_WITHOUT = (
    "the policy wants signatures, and cryptography is not there: pip install 'regfs[verify]', or for regfs as a Debian "
    "package apt install python3-cryptography"
)
_WITHOUT_CERTIFICATES = (
    "the policy wants certificates, and cryptography 45 or later is not there: pip install 'regfs[verify]'"
)


def require_package() -> None:
    """Raise BadConfiguration if the package cryptography is missing, or too old to verify certificates."""
    try:
        from cryptography.x509.verification import ExtensionPolicy  # noqa: F401 (version 45)
    except ImportError:
        raise BadConfiguration(_WITHOUT_CERTIFICATES) from None


def load_keys(pem: Pem, policy: str) -> tuple[PublicKeyTypes, ...]:
    """Load the public keys *pem* of the policy file *policy*. Raises BadConfiguration, also without the package."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise BadConfiguration(_WITHOUT) from None
    keys = []
    for name, content in _contents(pem, policy, "key"):
        try:
            keys.append(load_pem_public_key(content))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadConfiguration(f"{name} is not a public key in PEM: {error}") from None
    return tuple(keys)


def load_certificates(pem: Pem, policy: str) -> tuple[Certificate, ...]:
    """Load the certificates *pem*; a file may have several. Raises BadConfiguration, also without the package."""
    require_package()
    from cryptography.x509 import load_pem_x509_certificates

    certificates: list[Certificate] = []
    for name, content in _contents(pem, policy, "certificate"):
        try:
            certificates += load_pem_x509_certificates(content)
        except ValueError as error:
            raise BadConfiguration(f"{name} has no certificates in PEM: {error}") from None
    return tuple(certificates)


def read_file(path: str, what: str) -> bytes:
    """Return the bytes of a file that a policy names. Raises BadConfiguration."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise BadConfiguration(f"the {what} {path} of the policy cannot be read: {error.strerror}") from None


def is_signed_by(key: object, signature: bytes, message: bytes) -> bool:
    """Tell whether *signature* is one of *message* by *key*; False for keys of other kinds than those listed above."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, message, ECDSA(SHA256()))
        elif isinstance(key, RSAPublicKey):
            key.verify(signature, message, PKCS1v15(), SHA256())
        elif isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def der_of_key(key: PublicKeyTypes) -> bytes:
    """Return *key* in DER, as a certificate has it (SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def der_of(certificate: Certificate) -> bytes:
    """Return *certificate* in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _contents(pem: Pem, policy: str, what: str) -> list[tuple[str, bytes]]:
    return [(path, read_file(path, what)) for path in pem.paths] + [(f"a {what} in {policy}", t) for t in pem.texts]
