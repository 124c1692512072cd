"""Decodes one signature or attestation: its payload, its subjects, and the signer that it names. Verifies nothing.

    DSSE envelope        {"payloadType", "payload": base64, "signatures": [{"keyid", "sig"}]}
    sigstore bundle      {"mediaType", "verificationMaterial": {…}, "dsseEnvelope" | "messageSignature"}
    in-toto statement    {"_type", "subject": [{"name", "digest"}], "predicateType", "predicate"}
    simple signing       {"critical": {"identity", "image": {"docker-manifest-digest"}, "type"}, "optional"}
    Notary's JWS         {"payload": base64url, "protected", "header": {"x5c": [base64]}, "signature"}

Its fields decide which of these a document is. A predicate can be large and is never parsed (json_members.py). Sources:
DSSE, envelope.md; sigstore, protobuf-specs sigstore_bundle.proto; in-toto attestation, spec/v1; containers, signature
formats; Notary, signature-envelope-jws.md. Used by images/referring/ and images/judging/. Pure; any thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from regfs.errors import BadContent, TooLarge, Unsupported
from regfs.model.attestations.certificate import identity_in
from regfs.model.attestations.encodings import from_base64, from_json, from_pem
from regfs.model.attestations.json_members import members, text_of
from regfs.model.attestations.kinds import COSE
from regfs.model.strict_json import DOCUMENT_LIMIT, Fields

MOST_BYTES = 40 << 20
"""The size in bytes that BuildKit allows for one attestation; larger ones are not read."""

IN_TOTO_PAYLOAD = "application/vnd.in-toto+json"
_COSIGN = "dev.sigstore.cosign/"
_COSIGN_TYPE = "cosign container image signature"
_KEY_SIGNATURE = "dev.cosignproject.cosign/signature"
_MOST_LISTED = 64
_LATEST_S = 253_402_300_799  # the end of the year 9999


class Decoded(NamedTuple):
    """What one blob says.

    *form* names the format, for people. *payload* is what was signed, or the blob itself; *payload_type* its media
    type, "" if the blob does not give it. *signers* and *times* of signing are claims of the blob, not verified.
    """

    form: str
    payload: bytes
    payload_type: str = ""
    signers: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


class Statement(NamedTuple):
    """An in-toto statement: the digests of its subjects, `sha256:…`, its predicate's type, and that predicate."""

    subjects: tuple[str, ...]
    predicate_type: str
    predicate: bytes


class Envelope(NamedTuple):
    """A DSSE envelope: its payload and the signatures of it."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that are signed: DSSE's pre-authentication encoding. Lengths are in bytes."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


class CosignPayload(NamedTuple):
    """The subject of a cosign payload: the digest of a manifest, and the repository."""

    digest: str
    reference: str


def decode(content: bytes, media_type: str, annotations: Mapping[str, str]) -> Decoded:
    """Decode the blob *content*; *annotations* are its layer's, in which cosign 1 and 2 keep signatures.

    Raises BadContent for other formats than these five, TooLarge, and Unsupported for COSE.
    """
    if media_type == COSE:
        raise Unsupported("it is a COSE envelope, which regfs does not decode; .raw has its exact bytes")
    if len(content) > MOST_BYTES:
        raise TooLarge(f"it has {len(content)} bytes, more than {MOST_BYTES}")
    found = members(content)
    if "payloadType" in found:
        signers, times = _cosign_signers(annotations)
        return _envelope("DSSE envelope", found)._replace(signers=signers or _key_ids(found), times=times)
    if "verificationMaterial" in found or "dsseEnvelope" in found:
        return _bundle(found)
    if "_type" in found:
        return Decoded("in-toto statement, not signed", content, IN_TOTO_PAYLOAD)
    if "critical" in found:
        signers, times = _cosign_signers(annotations)
        return Decoded("cosign signature", content, media_type, signers, times)
    if "protected" in found and "payload" in found:
        return _jws(found)
    raise BadContent("it is not an envelope, bundle, statement or payload that regfs knows")


def statement_in(payload: bytes) -> Statement:
    """Return the parts of the in-toto statement *payload*. Raises BadContent, TooLarge."""
    found = members(payload)
    if not _text(found, "_type").startswith("https://in-toto.io/Statement/"):
        raise BadContent("it is not an in-toto statement")
    document = from_json(b'{"subject": %s}' % found.get("subject", b"[]"))
    digests: list[str] = []
    for subject in document.children("subject", limit=10_000):
        digests += [f"{algorithm}:{value}" for algorithm, value in subject.mapping("digest").items()]
    return Statement(tuple(digests), _text(found, "predicateType"), found.get("predicate", b"{}"))


def cosign_payload(payload: bytes) -> CosignPayload:
    """Return the subject of a cosign payload. Raises BadContent, TooLarge."""
    critical = from_json(payload).child("critical")
    image = None if critical is None else critical.child("image")
    if critical is None or image is None or critical.text("type") != _COSIGN_TYPE:
        raise BadContent("it does not say which image was signed")
    identity = critical.child("identity")
    digest = image.text("docker-manifest-digest") or image.text("Docker-manifest-digest")
    return CosignPayload(digest, "" if identity is None else identity.text("docker-reference"))


def bundle_envelope(content: bytes) -> Envelope:
    """Return the envelope in the sigstore bundle *content*. Raises BadContent if it has none, TooLarge."""
    return dsse_envelope(members(content).get("dsseEnvelope", b"null"))


def dsse_envelope(content: bytes) -> Envelope:
    """Return the DSSE envelope *content*. Raises BadContent, TooLarge."""
    found = members(content)
    document = from_json(b'{"signatures": %s}' % found.get("signatures", b"[]"))
    signatures = [from_base64(each.text("sig")) for each in document.children("signatures", limit=_MOST_LISTED)]
    payload = from_base64(_text(found, "payload", limit=2 * MOST_BYTES))
    return Envelope(_text(found, "payloadType"), payload, tuple(signatures))


def notary_digest(payload: bytes) -> str:
    """Return the digest of the manifest that a Notary payload is about. Raises BadContent, TooLarge."""
    target = from_json(payload).child("targetArtifact")
    if target is None:
        raise BadContent("it does not say what was signed")
    return target.text("digest")


def _envelope(form: str, found: Mapping[str, bytes]) -> Decoded:
    payload = from_base64(_text(found, "payload", limit=2 * MOST_BYTES))
    return Decoded(form, payload, _text(found, "payloadType"), _key_ids(found))


def _key_ids(found: Mapping[str, bytes]) -> tuple[str, ...]:
    document = from_json(b'{"signatures": %s}' % found.get("signatures", b"[]"))
    keys = [signature.text("keyid") for signature in document.children("signatures", limit=_MOST_LISTED)]
    return tuple(f"key {key[:200]!r}" if key else "a key that is not named" for key in keys)


def _bundle(found: Mapping[str, bytes]) -> Decoded:
    material = from_json(found.get("verificationMaterial", b"{}"))
    signers, times = _material_signers(material), _log_times(material)
    if "dsseEnvelope" in found:
        decoded = _envelope("sigstore bundle", members(found["dsseEnvelope"]))
        return decoded._replace(signers=signers or decoded.signers, times=times)
    if "messageSignature" not in found:
        raise BadContent("the bundle has no signature")
    return Decoded("sigstore bundle", found["messageSignature"], "", signers, times)


def _material_signers(material: Fields) -> tuple[str, ...]:
    certificate = material.child("certificate")
    if certificate is None and (chain := material.child("x509CertificateChain")) is not None:
        certificate = next(chain.children("certificates", limit=_MOST_LISTED), None)
    if certificate is not None:
        return (str(identity_in(from_base64(certificate.text("rawBytes")))),)
    key = material.child("publicKey")
    hint = "" if key is None else key.text("hint")
    return (f"key {hint[:200]!r}",) if hint else ()


def _log_times(material: Fields) -> tuple[str, ...]:
    times = []
    for entry in material.children("tlogEntries", limit=_MOST_LISTED):
        times.append(_time(entry.values.get("integratedTime")))
    return tuple(each for each in times if each)


def _cosign_signers(annotations: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return signers and times in the annotations of a layer made by cosign 1 or 2."""
    pem = annotations.get(f"{_COSIGN}certificate", "")
    times: tuple[str, ...] = ()
    if bundle := annotations.get(f"{_COSIGN}bundle"):
        payload = from_json(bundle.encode()).child("Payload")
        times = (_time(None if payload is None else payload.values.get("integratedTime")),)
    signers: tuple[str, ...] = ()
    if pem:
        signers = (str(identity_in(from_pem(pem)[0])),)
    elif _KEY_SIGNATURE in annotations:
        signers = ("a key that is not named",)
    return signers, tuple(each for each in times if each)


def _jws(found: Mapping[str, bytes]) -> Decoded:
    header = from_json(found.get("header", b"{}"))
    chain = header.texts("x5c", limit=_MOST_LISTED)
    signers = (str(identity_in(from_base64(chain[0]))),) if chain else ()
    protected = from_json(from_base64(_text(found, "protected")))
    signed_at = protected.text("io.cncf.notary.signingTime")
    payload = from_base64(_text(found, "payload", limit=DOCUMENT_LIMIT))
    return Decoded("Notary signature", payload, protected.text("cty"), signers, (signed_at,) if signed_at else ())


def _time(seconds: object) -> str:
    """Return a log's time, given as seconds since 1970 in a number or text, in RFC 3339; "" if it is not a time."""
    text = str(seconds) if isinstance(seconds, (int, str)) and not isinstance(seconds, bool) else ""
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not 0 < int(text) <= _LATEST_S:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(text)))


def _text(found: Mapping[str, bytes], key: str, *, limit: int = DOCUMENT_LIMIT) -> str:
    return text_of(found.get(key, b'""'), limit=limit)
