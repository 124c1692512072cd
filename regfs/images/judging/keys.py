"""Public keys, and signatures by them: the package cryptography, loaded when a policy has a key.

Keys and hashes are those that containers/image accepts: ECDSA and RSA (PKCS #1 v1.5) with SHA-256, Ed25519. Used by
judge.py. Thread rule: values; any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regfs.errors import BadConfiguration

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


def load_key(pem: bytes, name: str) -> PublicKeyTypes:
    """Return the public key *pem*; *name* is where it is from. Raises BadConfiguration, also without the package."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise BadConfiguration(
            "the policy wants a signature by a key, and the package cryptography is not there: install regfs[verify]"
        ) from None
    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadConfiguration(f"{name} is no public key in PEM: {error}") from None


def is_signed_by(key: PublicKeyTypes, signature: bytes, message: bytes) -> bool:
    """Tell whether *signature* is one of *message* by *key*; False for keys of other kinds than those above."""
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
