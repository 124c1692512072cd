"""A sigstore of one's own: an authority as Fulcio, a log as Rekor, a log of certificates; and what they sign.

    service = Sigstore.make()
    signer = service.signer("me@example.org")
    attach(registry, "app", digest, ".sig", service.payload(signer, digest, reference="registry.example/app"))
    refer(registry, "app", digest, service.bundle(signer, statement(digest, COSIGN_SIGN, {})))

Nothing has the bytes of another program: certificates and signatures are made by the package cryptography, after the
specifications. Thread rule: values.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import struct
from collections.abc import Mapping
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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from regfs.model.digest import Digest
from tests.support.artifacts import Artifact, artifact_of, blob
from tests.support.attached import BUNDLE, IN_TOTO, SIMPLE_SIGNING, encoded
from tests.support.images import OCI

EMAIL, ISSUER = "alice@example.org", "https://accounts.example.org"
SIGNED_S = 1_790_000_000
"""When certificates are issued and signatures logged: long ago or far ahead, so that no certificate is valid today."""
_SCT = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_START = "2020-01-01T00:00:00Z"
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
    def make(name: str, *, by: Authority | None = None) -> Authority:
        """Return a root, or an authority that *by* has issued."""
        key, subject = new_key(), _named(name)
        issuer = subject if by is None else by.certificate.subject
        certificate = (
            _builder(key.public_key(), subject, issuer, SIGNED_S - 86_400, 10 * 86_400)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(_key_id(key if by is None else by.key), critical=False)
            .sign(key if by is None else by.key, SHA256())
        )
        return Authority(key, certificate)


@dataclass(frozen=True)
class Signer:
    """A key with a certificate."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True)
class Sigstore:
    """The services. *root* has issued *fulcio*, which issues certificates."""

    root: Authority
    fulcio: Authority
    log: EllipticCurvePrivateKey
    certificate_log: EllipticCurvePrivateKey

    @staticmethod
    @functools.cache
    def make(name: str = "own") -> Sigstore:
        """Return the services *name*; always the same ones."""
        root = Authority.make(f"{name} root")
        return Sigstore(root, Authority.make(f"{name} intermediate", by=root), new_key(), new_key())

    def signer(
        self, email: str = EMAIL, *, issuer: str = ISSUER, at_s: int = SIGNED_S - 60, lasts_s: int = 600,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING, by: Authority | None = None,
    ) -> Signer:  # fmt: skip
        """Return a signer with a certificate as Fulcio issues it, valid for ten minutes."""
        key, authority = new_key(), by or self.fulcio
        builder = (
            _builder(key.public_key(), x509.Name([]), authority.certificate.subject, at_s, lasts_s)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=True)
            .add_extension(_key_id(authority.key), critical=False)
            .add_extension(_extension("1.3.6.1.4.1.57264.1.1", issuer.encode()), critical=False)
            .add_extension(_extension("1.3.6.1.4.1.57264.1.8", _der(0x0C, issuer.encode())), critical=False)
        )
        empty = builder.add_extension(x509.UnrecognizedExtension(_SCT, _der(4, b"\0\0")), critical=False)
        precertificate = empty.sign(authority.key, SHA256()).tbs_precertificate_bytes
        promise = x509.UnrecognizedExtension(_SCT, _der(4, self._promise(authority, precertificate, at_s)))
        return Signer(key, builder.add_extension(promise, critical=False).sign(authority.key, SHA256()))

    def payload(
        self, signer: Signer, digest: Digest, *, reference: str, at_s: int = SIGNED_S, by: Signer | None = None,
        **changed: str,
    ) -> Artifact:  # fmt: skip
        """Return what cosign 2 pushes under a tag; *by* has signed in place of *signer*. *changed*: annotations."""
        critical = {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": str(digest)},
            "type": "cosign container image signature",
        }
        payload = json.dumps({"critical": critical, "optional": None}).encode()
        signature = signed((by or signer).key, payload)
        entry = self.entry(_hashed(payload, signature, pem_of(signer.certificate)), at_s)
        annotations = {
            "dev.cosignproject.cosign/signature": encoded(signature),
            "dev.sigstore.cosign/certificate": pem_of(signer.certificate).decode(),
            "dev.sigstore.cosign/chain": pem_of(self.fulcio.certificate, self.root.certificate).decode(),
            "dev.sigstore.cosign/bundle": json.dumps(_annotation(entry)),
        }
        annotations |= {f"dev.sigstore.cosign/{name}": text for name, text in changed.items()}
        kept = {name: text for name, text in annotations.items() if text}
        return artifact_of(blob(payload, SIMPLE_SIGNING, kept), config_type=f"{OCI}.config.v1+json")

    def bundle(
        self, signer: Signer, payload: bytes, *, payload_type: str = IN_TOTO, at_s: int = SIGNED_S,
        by: Signer | None = None, logged: bytes | None = None, promised: bool = True,
    ) -> Artifact:  # fmt: skip
        """Return what cosign 3 pushes. *by* has signed; the log has the payload *logged*, and *promised* to keep it."""
        kind = payload_type.encode()
        signature = signed((by or signer).key, b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
        entry = self.entry(
            _enveloped(payload if logged is None else logged, signature, pem_of(signer.certificate)), at_s
        )
        if not promised:
            del entry["inclusionPromise"]
        envelope = {
            "payloadType": payload_type, "payload": encoded(payload),
            "signatures": [{"sig": encoded(signature), "keyid": "another"}],
        }  # fmt: skip
        material = {
            "certificate": {"rawBytes": encoded(signer.certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [entry],
        }
        document = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
        annotations = {"dev.sigstore.bundle.predicateType": json.loads(payload)["predicateType"]}
        return artifact_of(blob(json.dumps(document).encode(), BUNDLE), kind=BUNDLE, annotations=annotations)

    def entry(self, body: bytes, at_s: int) -> dict[str, object]:
        """Return the log's only entry, with its promise and a proof, as protobuf writes it."""
        canonical = json.dumps(
            {"body": encoded(body), "integratedTime": at_s, "logID": self._log_id.hex(), "logIndex": 0},
            separators=(",", ":"),
        )
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"log.example.org\n1\n{encoded(root)}\n"
        mark = encoded(self._log_id[:4] + signed(self.log, note.encode()))
        proof = {
            "logIndex": "0", "rootHash": encoded(root), "treeSize": "1", "hashes": [],
            "checkpoint": {"envelope": f"{note}\n— log.example.org {mark}\n"},
        }  # fmt: skip
        return {
            "logIndex": "0",
            "logId": {"keyId": encoded(self._log_id)},
            "kindVersion": {"kind": json.loads(body)["kind"], "version": "0.0.1"},
            "integratedTime": str(at_s),
            "inclusionPromise": {"signedEntryTimestamp": encoded(signed(self.log, canonical.encode()))},
            "inclusionProof": proof,
            "canonicalizedBody": encoded(body),
        }

    def requirement(self, **changed: object) -> dict[str, object]:
        """Return what a containers-policy.json says to want EMAIL's signature; *changed*: of `fulcio`."""
        authorities = pem_of(self.root.certificate, self.fulcio.certificate)
        fulcio = {"caData": encoded(authorities), "oidcIssuer": ISSUER, "subjectEmail": EMAIL}
        return {
            "type": "sigstoreSigned", "fulcio": fulcio | changed,
            "rekorPublicKeyData": encoded(spki(self.log.public_key(), Encoding.PEM)),
            "signedIdentity": {"type": "matchRepository"},
        }  # fmt: skip

    def trusted_root(self) -> dict[str, object]:
        """Return a trusted_root.json of these services."""
        chain = [
            {"rawBytes": encoded(each.certificate.public_bytes(Encoding.DER))} for each in (self.fulcio, self.root)
        ]
        valid = {"start": _START}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log(self.log, valid)],
            "certificateAuthorities": [
                {"subject": {"organization": "own", "commonName": "own"}, "uri": "https://fulcio.example.org",
                 "certChain": {"certificates": chain}, "validFor": valid}
            ],
            "ctlogs": [_log(self.certificate_log, valid)],
            "timestampAuthorities": [],
        }  # fmt: skip

    @property
    def _log_id(self) -> bytes:
        return hashlib.sha256(spki(self.log.public_key())).digest()

    def _promise(self, authority: Authority, precertificate: bytes, at_s: int) -> bytes:
        """Return the certificate log's promise for a certificate. Source: RFC 6962, section 3.2."""
        issuer = hashlib.sha256(spki(authority.key.public_key())).digest()
        length = struct.pack("!I", len(precertificate))[1:]
        message = struct.pack("!BBQH", 0, 0, at_s * 1000, 1) + issuer + length + precertificate + b"\0\0"
        signature = signed(self.certificate_log, message)
        log_id = hashlib.sha256(spki(self.certificate_log.public_key())).digest()
        promise = b"\0" + log_id + struct.pack("!QHBBH", at_s * 1000, 0, 4, 3, len(signature)) + signature
        return struct.pack("!HH", len(promise) + 2, len(promise)) + promise


def key_entry(service: Sigstore, key: EllipticCurvePrivateKey, payload: bytes, signature: bytes) -> str:
    """Return the annotation of cosign for a signature by a key that is logged."""
    body = _hashed(payload, signature, spki(key.public_key(), Encoding.PEM))
    return json.dumps(_annotation(service.entry(body, SIGNED_S)))


def _annotation(entry: Mapping[str, object]) -> dict[str, object]:
    log, promise = entry["logId"], entry["inclusionPromise"]
    assert isinstance(log, dict)
    assert isinstance(promise, dict)
    payload = {
        "body": entry["canonicalizedBody"], "integratedTime": int(str(entry["integratedTime"])), "logIndex": 0,
        "logID": base64.b64decode(log["keyId"]).hex(),
    }  # fmt: skip
    return {"SignedEntryTimestamp": promise["signedEntryTimestamp"], "Payload": payload}


def _hashed(message: bytes, signature: bytes, signer: bytes) -> bytes:
    spec = {
        "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(message).hexdigest()}},
        "signature": {"content": encoded(signature), "publicKey": {"content": encoded(signer)}},
    }
    return _body("hashedrekord", spec)


def _enveloped(payload: bytes, signature: bytes, signer: bytes) -> bytes:
    spec = {
        "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(b"not looked at").hexdigest()},
        "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
        "signatures": [{"signature": encoded(signature), "verifier": encoded(signer)}],
    }
    return _body("dsse", spec)


def _body(kind: str, spec: object) -> bytes:
    body = {"apiVersion": "0.0.1", "kind": kind, "spec": spec}
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _log(key: EllipticCurvePrivateKey, valid: object) -> dict[str, object]:
    der = spki(key.public_key())
    return {
        "baseUrl": "https://log.example.org",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": encoded(der), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid},
        "logId": {"keyId": encoded(hashlib.sha256(der).digest())},
    }


def _builder(
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


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=signs, key_cert_sign=not signs, crl_sign=not signs, **_NO_USAGE)


def _key_id(key: EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _extension(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(ObjectIdentifier(oid), value)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content
