"""Extracts what verifies a signature: the signed bytes, the signature, the certificate, and the entry of the log.

    cosign 1, 2   a payload; annotations of its layer (dev.sigstore.cosign/certificate, chain, bundle)
    cosign 3      a sigstore bundle with a DSSE envelope

    bundle annotation   {"SignedEntryTimestamp": base64,
                         "Payload": {"body": base64, "integratedTime": s, "logIndex": n, "logID": hex}}
    tlogEntries[]       {"logIndex", "logId": {"keyId": base64}, "integratedTime", "inclusionPromise":
                         {"signedEntryTimestamp"}, "canonicalizedBody": base64}
    body, hashedrekord  {"apiVersion", "kind", "spec": {"data": {"hash": {"algorithm", "value"}},
                         "signature": {"content": base64, "publicKey": {"content": base64 of PEM}}}}
    body, dsse          {…, "spec": {"payloadHash": {"algorithm", "value"},
                         "signatures": [{"signature": base64, "verifier": base64 of PEM}]}}

Sources: cosign, specs/SIGNATURE_SPEC.md; sigstore, protobuf-specs sigstore_rekor.proto; Rekor, pkg/types/hashedrekord
and dsse, v0.0.1. Verifies nothing. Used by images/judging/. Pure; any thread.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from regfs.errors import BadContent
from regfs.model.attestations.documents import Envelope, bundle_envelope, dsse_envelope
from regfs.model.attestations.encodings import from_base64, from_json, from_pem
from regfs.model.attestations.json_members import members
from regfs.model.strict_json import Fields

HASHED, ENVELOPE = "hashedrekord", "dsse"
_COSIGN = "dev.sigstore.cosign/"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_VERSION = "0.0.1"
_MOST_LISTED = 16
_MOST_SIGNATURE = 4096
_MOST_NUMBER = 2**53
_LATEST_S = 253_402_300_799  # the end of the year 9999


class LogEntry(NamedTuple):
    """An entry of Rekor's log: *body*, logged at *logged_s* (s since 1970); *promise* is the log's signature."""

    body: bytes
    logged_s: int
    number: int
    log_id: str
    promise: bytes

    @property
    def promised_bytes(self) -> bytes:
        """The bytes that the log signed: canonical JSON of the entry. Source: RFC 8785."""
        body = base64.b64encode(self.body).decode()
        return (
            f'{{"body":"{body}","integratedTime":{self.logged_s},"logID":"{self.log_id}","logIndex":{self.number}}}'
        ).encode()


class Logged(NamedTuple):
    """The body of an entry: *kind*, the SHA-256 of what was signed, the signature, and the key or certificate (DER).

    For HASHED, the hash is of the signed bytes; for ENVELOPE, of the payload.
    """

    kind: str
    sha256: str
    signature: bytes
    signer: bytes


class Signature(NamedTuple):
    """One *signature* of the bytes *message*, which contain *payload*; nothing is verified.

    *certificate* and *chain* are in DER; b"" and empty if a key signed. *entry* is None if there is no log entry with a
    promise. *kind* is the kind that the log entry must have.
    """

    kind: str
    payload_type: str
    payload: bytes
    message: bytes
    signature: bytes
    certificate: bytes
    chain: tuple[bytes, ...]
    entry: LogEntry | None


def cosign_signature(payload: bytes, annotations: Mapping[str, str]) -> Signature:
    """Return the signature in a layer that cosign 1 or 2 made, with *annotations*. Raises BadContent, TooLarge."""
    signature = _bounded(from_base64(annotations.get(_SIGNATURE, "")))
    return Signature(HASHED, "", payload, payload, signature, *_cosign_material(annotations))


def attestation_signature(content: bytes, annotations: Mapping[str, str]) -> Signature:
    """Return the signature of an attestation of cosign 1 or 2, an envelope. Raises BadContent, TooLarge."""
    return _enveloped(dsse_envelope(content), *_cosign_material(annotations))


def bundle_signature(content: bytes) -> Signature:
    """Return the signature in a sigstore bundle with an envelope. Raises BadContent, TooLarge."""
    material = from_json(members(content).get("verificationMaterial", b"{}"))
    certificates = tuple(_certificates(material)) or (b"",)
    return _enveloped(bundle_envelope(content), certificates[0], certificates[1:], next(_entries(material), None))


def _enveloped(envelope: Envelope, certificate: bytes, chain: tuple[bytes, ...], entry: LogEntry | None) -> Signature:
    if len(envelope.signatures) != 1:
        raise BadContent(f"its envelope has {len(envelope.signatures)} signatures instead of one")
    signature = _bounded(envelope.signatures[0])
    return Signature(
        ENVELOPE, envelope.payload_type, envelope.payload, envelope.signed_bytes, signature, certificate, chain, entry
    )


def _cosign_material(annotations: Mapping[str, str]) -> tuple[bytes, tuple[bytes, ...], LogEntry | None]:
    """Return the certificate, its chain and the log's entry in the annotations of a layer."""
    certificate, chain = annotations.get(f"{_COSIGN}certificate", ""), annotations.get(f"{_COSIGN}chain", "")
    found = from_pem(certificate) if certificate else [b""]
    if len(found) != 1:
        raise BadContent("it has several certificates of one signer")
    entry = annotations.get(f"{_COSIGN}bundle", "")
    return (
        found[0],
        tuple(from_pem(chain)) if chain else (),
        _cosign_entry(from_json(entry.encode())) if entry else None,
    )


def logged_in(body: bytes) -> Logged:
    """Return the parsed *body* of an entry. Raises BadContent for other kinds of entries, TooLarge."""
    document = from_json(body)
    kind, spec = document.text("kind"), document.child("spec")
    if kind not in (HASHED, ENVELOPE) or document.text("apiVersion") != _VERSION or spec is None:
        raise BadContent(f"its entry in the log is a {kind[:50]} {document.text('apiVersion')[:20]}")
    if kind == ENVELOPE:
        signatures = list(spec.children("signatures", limit=_MOST_LISTED))
        if len(signatures) != 1:
            raise BadContent(f"its entry in the log has {len(signatures)} signatures instead of one")
        return _logged(kind, spec.child("payloadHash"), signatures[0].text("signature"), signatures[0].text("verifier"))
    data, signature = spec.child("data"), spec.child("signature")
    key = None if signature is None else signature.child("publicKey")
    if data is None or signature is None or key is None:
        raise BadContent("its entry in the log is incomplete")
    return _logged(kind, data.child("hash"), signature.text("content"), key.text("content"))


def _logged(kind: str, hashed: Fields | None, signature: str, signer: str) -> Logged:
    if hashed is None or hashed.text("algorithm") != "sha256":
        raise BadContent("its entry in the log has no SHA-256")
    found = from_pem(from_base64(signer).decode("ascii", "replace"))
    if len(found) != 1:
        raise BadContent("its entry in the log does not name exactly one signer")
    return Logged(kind, hashed.text("value"), from_base64(signature), found[0])


def _certificates(material: Fields) -> Iterator[bytes]:
    certificate, chain = material.child("certificate"), material.child("x509CertificateChain")
    if certificate is not None:
        yield from_base64(certificate.text("rawBytes"))
    elif chain is not None:
        for each in chain.children("certificates", limit=_MOST_LISTED):
            yield from_base64(each.text("rawBytes"))


def _entries(material: Fields) -> Iterator[LogEntry]:
    for entry in material.children("tlogEntries", limit=_MOST_LISTED):
        promise, log = entry.child("inclusionPromise"), entry.child("logId")
        if promise is not None and log is not None:
            yield LogEntry(
                body=from_base64(entry.text("canonicalizedBody")),
                logged_s=_number(entry, "integratedTime", most=_LATEST_S),
                number=_number(entry, "logIndex"),
                log_id=from_base64(log.text("keyId")).hex(),
                promise=_bounded(from_base64(promise.text("signedEntryTimestamp"))),
            )


def _cosign_entry(document: Fields) -> LogEntry:
    payload = document.child("Payload")
    if payload is None:
        raise BadContent("its entry in the log has no Payload")
    log_id = payload.text("logID")
    if not log_id.isascii() or not log_id.isalnum():
        raise BadContent("the logID of its log entry is invalid")
    return LogEntry(
        body=from_base64(payload.text("body")),
        logged_s=_number(payload, "integratedTime", most=_LATEST_S),
        number=_number(payload, "logIndex"),
        log_id=log_id,
        promise=_bounded(from_base64(document.text("SignedEntryTimestamp"))),
    )


def _number(fields: Fields, key: str, *, most: int = _MOST_NUMBER) -> int:
    """Return the number at *key*; protobuf writes 64 bits as text, and leaves 0 out."""
    value = fields.values.get(key)
    text = "0" if value is None else str(value)
    if isinstance(value, (bool, float)) or not (text.isascii() and text.isdigit()) or len(text) > 16:
        fields.fail(key, "is not a whole number")
    if int(text) > most:
        fields.fail(key, "is out of range")
    return int(text)


def _bounded(signature: bytes) -> bytes:
    if not 0 < len(signature) <= _MOST_SIGNATURE:
        raise BadContent(f"its signature has {len(signature)} bytes")
    return signature
