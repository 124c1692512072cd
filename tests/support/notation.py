"""Signatures of notation, made after its specifications, and a trust store for them.

    chain = chain_of("acme")
    refer(registry, "app", digest, notation_signature(chain, digest))
    policy = write_trust_policy(directory, {"acme": chain[-1]}, level="strict")

Thread rule: values.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from regfs.model.digest import Digest
from tests.support.artifacts import Artifact, artifact_of, blob
from tests.support.attached import NOTARY, encoded, unpadded
from tests.support.fulcio import time_of
from tests.support.images import OCI

NOW_S = 1_800_000_000
LONG_S = 20 * 365 * 86_400
PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
_NAMES = "io.cncf.notary."
_FALSE = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
    False,
)
Key = EllipticCurvePrivateKey | RSAPrivateKey


@dataclass(frozen=True)
class Holder:
    """A key with a certificate."""

    key: Key
    certificate: x509.Certificate


@functools.cache
def key_of(kind: str) -> Key:
    """Return a key; always the same of a kind: making one of RSA takes long."""
    if kind.startswith("RSA"):
        return generate_rsa_key(65537, int(kind[3:]))
    return generate_private_key(SECP384R1() if kind == "P-384" else SECP256R1())


@functools.cache
def root_of(name: str) -> Holder:
    """Return the authority *name*; always the same one."""
    key = generate_private_key(SECP256R1())
    return Holder(key, _certificate(key, _name(name), None, ca=True))


def holder(
    organization: str = "acme", *, by: Holder | None = None, kind: str = "P-256", start_s: int = 0, end_s: int = 0,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING, crl: str = "", ca: bool = False,
) -> Holder:  # fmt: skip
    """Return a signer of *organization* with a certificate that *by* has issued."""
    key = key_of(kind)
    extensions: list[x509.ExtensionType] = [] if ca else [x509.ExtendedKeyUsage([usage])]
    if crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)
        extensions.append(x509.CRLDistributionPoints([point]))
    times = (start_s or NOW_S - LONG_S, end_s or NOW_S + LONG_S)
    return Holder(
        key, _certificate(key, _name(organization), by or root_of("acme root"), *extensions, ca=ca, times=times)
    )


def notation_signature(
    signer: Holder, digest: Digest, *, root: Holder | None = None, between: Holder | None = None,
    by: Key | None = None, header: object = None, timestamp: Callable[[bytes], bytes] | None = None, **changed: object,
) -> Artifact:  # fmt: skip
    """Return notation's artifact; *between* is an authority below the root.

    *by* signs in place of *signer*. *changed* are signed attributes; None removes one.
    """
    attributes: dict[str, object] = {
        "alg": _algorithm(signer.key), "cty": PAYLOAD_TYPE, "crit": [f"{_NAMES}signingScheme"],
        f"{_NAMES}signingScheme": "notary.x509", f"{_NAMES}signingTime": "2026-09-21T14:13:20Z",
    }  # fmt: skip
    attributes |= {key if key in attributes else f"{_NAMES}{key}": value for key, value in changed.items()}
    attributes = {key: value for key, value in attributes.items() if value is not None}
    target = {"mediaType": f"{OCI}.manifest.v1+json", "digest": str(digest), "size": 7}
    payload = unpadded(json.dumps({"targetArtifact": target}).encode())
    protected = unpadded(json.dumps(attributes).encode())
    signature = _sign(by or signer.key, f"{protected}.{payload}".encode())
    chain = [each.certificate for each in (signer, between, root or root_of("acme root")) if each is not None]
    unsigned: dict[str, object] = {"x5c": [encoded(each.public_bytes(Encoding.DER)) for each in chain]}
    if timestamp is not None:
        unsigned[f"{_NAMES}timestampSignature"] = encoded(timestamp(signature))
    document = {
        "payload": payload, "protected": protected, "header": unsigned if header is None else header,
        "signature": unpadded(signature),
    }  # fmt: skip
    return artifact_of(blob(json.dumps(document).encode(), "application/jose+json"), kind=NOTARY)


def write_trust_policy(
    directory: Path, stores: Mapping[str, x509.Certificate], *policies: Mapping[str, object], level: str = "strict",
    **changed: object,
) -> Path:  # fmt: skip
    """Write a trust policy for all repositories, or *policies*, and the trust store beside it; return its path."""
    entry = {
        "name": "ours", "registryScopes": ["*"], "signatureVerification": {"level": level},
        "trustStores": [f"{name.replace('/', ':')}" for name in stores],
        "trustedIdentities": ["x509.subject: C=US, ST=WA, O=acme"],
    } | changed  # fmt: skip
    for name, certificate in stores.items():
        store = directory / "truststore/x509" / name
        store.mkdir(parents=True, exist_ok=True)
        (store / "root.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    path = directory / "trustpolicy.json"
    path.write_text(json.dumps({"version": "1.0", "trustPolicies": list(policies) or [entry]}))
    return path


def _certificate(
    key: Key, subject: x509.Name, by: Holder | None, *extensions: x509.ExtensionType, ca: bool,
    times: tuple[int, int] = (NOW_S - LONG_S, NOW_S + LONG_S),
) -> x509.Certificate:  # fmt: skip
    usage = x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=False, **_FALSE)
    builder = (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(time_of(times[0]))
        .not_valid_after(time_of(times[1]) + timedelta())
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.ExtendedKeyUsage))
    return builder.sign(key if by is None else by.key, hashes.SHA256())


def _name(organization: str) -> x509.Name:
    parts = (
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.STATE_OR_PROVINCE_NAME, "WA"),
        (NameOID.ORGANIZATION_NAME, organization),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _algorithm(key: Key) -> str:
    if isinstance(key, RSAPrivateKey):
        return {2048: "PS256", 3072: "PS384"}[key.key_size]
    return {256: "ES256", 384: "ES384"}[key.key_size]


def _sign(key: Key, message: bytes) -> bytes:
    hashed = hashes.SHA384() if key.key_size in (384, 3072) else hashes.SHA256()
    if isinstance(key, RSAPrivateKey):
        return key.sign(message, PSS(MGF1(hashed), hashed.digest_size), hashed)
    half = key.key_size // 8
    return b"".join(each.to_bytes(half) for each in decode_dss_signature(key.sign(message, ECDSA(hashed))))
