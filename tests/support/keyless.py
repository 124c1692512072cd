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
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from regfs.model.digest import Digest
from tests.support.artifacts import Artifact, artifact_of, blob
from tests.support.attached import BUNDLE, IN_TOTO, SIMPLE_SIGNING, encoded
from tests.support.fulcio import (
    EMAIL,
    ISSUER,
    SIGNED_S,
    Authority,
    Signer,
    authority_key,
    certificate_of,
    der_of,
    extension_of,
    key_usage,
    new_key,
    pem_of,
    signed,
    spki,
)
from tests.support.images import OCI
from tests.support.timestamps import answer_with

_SCT = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_START = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class Sigstore:
    """The services. *root* has issued *fulcio*, which issues certificates."""

    root: Authority
    fulcio: Authority
    log: EllipticCurvePrivateKey
    certificate_log: EllipticCurvePrivateKey

    @staticmethod
    @functools.cache
    def make(name: str = "own", *, valid_at_s: int = SIGNED_S) -> Sigstore:
        """Return the services *name*; always the same ones. *valid_at_s*: in the days around that time."""
        root = Authority.make(f"{name} root", at_s=valid_at_s)
        fulcio = Authority.make(f"{name} intermediate", by=root, at_s=valid_at_s)
        return Sigstore(root, fulcio, new_key(), new_key())

    def signer(
        self, email: str = EMAIL, *, issuer: str = ISSUER, at_s: int = SIGNED_S - 60, lasts_s: int = 600,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING, by: Authority | None = None,
    ) -> Signer:  # fmt: skip
        """Return a signer with a certificate as Fulcio issues it, valid for ten minutes."""
        key, authority = new_key(), by or self.fulcio
        builder = (
            certificate_of(key.public_key(), x509.Name([]), authority.certificate.subject, at_s, lasts_s)
            .add_extension(key_usage(signs=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=True)
            .add_extension(authority_key(authority.key), critical=False)
            .add_extension(extension_of("1.3.6.1.4.1.57264.1.1", issuer.encode()), critical=False)
            .add_extension(extension_of("1.3.6.1.4.1.57264.1.8", der_of(0x0C, issuer.encode())), critical=False)
        )
        empty = builder.add_extension(x509.UnrecognizedExtension(_SCT, der_of(4, b"\0\0")), critical=False)
        precertificate = empty.sign(authority.key, SHA256()).tbs_precertificate_bytes
        promise = x509.UnrecognizedExtension(_SCT, der_of(4, self._promise(authority, precertificate, at_s)))
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

    def stamped_bundle(self, signer: Signer, payload: bytes, *, token: Callable[[bytes], bytes] | None) -> Artifact:
        """Return a bundle that was logged by Rekor 2: without a time, which the timestamp *token* of RFC 3161 has."""
        message = b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)
        signature = signed(signer.key, message)
        certificate = encoded(signer.certificate.public_bytes(Encoding.DER))
        verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": certificate}}
        spec = {
            "data": {"algorithm": "SHA2_256", "digest": encoded(hashlib.sha256(message).digest())},
            "signature": {"content": encoded(signature), "verifier": verifier},
        }
        entry = self.entry(_body("hashedrekord", {"hashedRekordV002": spec}, "0.0.2"), 0)
        del entry["inclusionPromise"], entry["integratedTime"]
        stamps = [] if token is None else [{"signedTimestamp": encoded(answer_with(token(signature)))}]
        material = {
            "certificate": {"rawBytes": certificate}, "tlogEntries": [entry],
            "timestampVerificationData": {"rfc3161Timestamps": stamps},
        }  # fmt: skip
        envelope = {
            "payloadType": IN_TOTO, "payload": encoded(payload),
            "signatures": [{"sig": encoded(signature), "keyid": ""}],
        }  # fmt: skip
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
            "kindVersion": {"kind": json.loads(body)["kind"], "version": json.loads(body)["apiVersion"]},
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

    def trusted_root(self, *stamps: x509.Certificate) -> dict[str, object]:
        """Return a trusted_root.json of these services; *stamps* is the chain of a timestamp authority."""
        chain = _raw(self.fulcio.certificate, self.root.certificate)
        valid = {"start": _START}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log(self.log, valid)],
            "certificateAuthorities": [_authority(chain, valid)],
            "ctlogs": [_log(self.certificate_log, valid)],
            "timestampAuthorities": [_authority(_raw(*stamps), valid)] if stamps else [],
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


def _body(kind: str, spec: object, version: str = "0.0.1") -> bytes:
    body = {"apiVersion": version, "kind": kind, "spec": spec}
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _raw(*certificates: x509.Certificate) -> list[dict[str, str]]:
    return [{"rawBytes": encoded(each.public_bytes(Encoding.DER))} for each in certificates]


def _authority(chain: list[dict[str, str]], valid: object) -> dict[str, object]:
    subject = {"organization": "own", "commonName": "own"}
    return {
        "subject": subject, "uri": "https://ca.example.org", "certChain": {"certificates": chain}, "validFor": valid
    }  # fmt: skip


def _log(key: EllipticCurvePrivateKey, valid: object) -> dict[str, object]:
    der = spki(key.public_key())
    return {
        "baseUrl": "https://log.example.org",
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": encoded(der), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid},
        "logId": {"keyId": encoded(hashlib.sha256(der).digest())},
    }
