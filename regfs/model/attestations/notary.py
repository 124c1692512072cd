"""Parses a signature of notation: a JWS in the flattened JSON form. Verifies nothing.

    {"payload": base64url, "protected": base64url, "header": {"x5c": [base64 of DER, …, the root],
     "io.cncf.notary.timestampSignature": base64, "io.cncf.notary.signingAgent"}, "signature": base64url}
    protected   {"alg", "cty", "crit": [names], "io.cncf.notary.signingScheme", "io.cncf.notary.signingTime",
                 "io.cncf.notary.authenticSigningTime", "io.cncf.notary.expiry"}
    payload     {"targetArtifact": {"mediaType", "digest", "size"}}

A signature with an unknown critical attribute (`crit`), for example one that wants a plugin, is refused. Source: Notary
Project, signature-envelope-jws.md; RFC 7515. Used by images/judging/notation/. Pure; any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.errors import BadContent
from regfs.model.attestations.documents import notary_digest
from regfs.model.attestations.encodings import from_base64, from_json
from regfs.model.dates import exact_date_ns
from regfs.model.strict_json import Fields

X509, SIGNING_AUTHORITY = "notary.x509", "notary.x509.signingAuthority"
PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
_NAMES = "io.cncf.notary."
_SCHEME, _TIME, _AUTHENTIC, _EXPIRY = (
    f"{_NAMES}{name}" for name in ("signingScheme", "signingTime", "authenticSigningTime", "expiry")
)
_TIMESTAMPS = (f"{_NAMES}timestampSignature", f"{_NAMES}timestamp")
_MOST_CERTIFICATES = 16
_MOST_LISTED = 16
_S = 1_000_000_000


class NotarySignature(NamedTuple):
    """One *signature* of *signed_bytes*, whose payload names the manifest *digest*; nothing is verified.

    *chain* begins with the signer's certificate and ends with a root (DER). *authentic_s* is the time that a signing
    authority vouches for, *expiry_s* the time at which the signature expires, both in seconds since 1970, None if
    absent. *timestamp* is a token of RFC 3161, b"" if absent.
    """

    algorithm: str
    scheme: str
    signed_bytes: bytes
    digest: str
    signature: bytes
    chain: tuple[bytes, ...]
    authentic_s: float | None
    expiry_s: float | None
    timestamp: bytes


def notary_signature(content: bytes) -> NotarySignature:
    """Return the signature in the JWS *content*. Raises BadContent, TooLarge."""
    document = from_json(content)
    for key in document.values:
        if key not in ("payload", "protected", "header", "signature"):
            document.fail(key[:100], "is not known")
    header = document.child("header")
    if header is None:
        document.fail("header", "is missing")
    protected, payload = document.text("protected"), document.text("payload")
    attributes = from_json(from_base64(protected))
    _check_attributes(attributes)
    timestamp = next((header.text(name) for name in _TIMESTAMPS if header.has(name)), "")
    return NotarySignature(
        algorithm=attributes.text("alg"),
        scheme=attributes.text(_SCHEME),
        signed_bytes=f"{protected}.{payload}".encode(),
        digest=notary_digest(from_base64(payload)),
        signature=from_base64(document.text("signature")),
        chain=tuple(from_base64(each) for each in header.texts("x5c", limit=_MOST_CERTIFICATES)),
        authentic_s=_time(attributes, _AUTHENTIC),
        expiry_s=_time(attributes, _EXPIRY),
        timestamp=from_base64(timestamp),
    )


def _check_attributes(attributes: Fields) -> None:
    """Raise BadContent if the signed attributes are invalid, or one of them is critical and unknown."""
    critical = attributes.texts("crit", limit=_MOST_LISTED)
    for name in critical:
        if name not in (_SCHEME, _AUTHENTIC, _EXPIRY):
            raise BadContent(f"it wants {name[:100]!r} to be understood, which regfs does not")
    if _SCHEME not in critical or not all(name in critical for name in (_AUTHENTIC, _EXPIRY) if attributes.has(name)):
        raise BadContent("it does not say that its scheme, its authentic time or its expiry must be understood")
    if attributes.text("cty") != PAYLOAD_TYPE:
        raise BadContent(f"it signs {attributes.text('cty')[:100]!r}")
    scheme = attributes.text(_SCHEME)
    if scheme not in (X509, SIGNING_AUTHORITY):
        raise BadContent(f"its scheme is {scheme[:100]!r}")
    if attributes.has(_AUTHENTIC) != (scheme == SIGNING_AUTHORITY) or attributes.has(_TIME) != (scheme == X509):
        raise BadContent("its signing time is not the one of its scheme")


def _time(attributes: Fields, name: str) -> float | None:
    if not attributes.has(name):
        return None
    nanoseconds = exact_date_ns(attributes.text(name))
    if nanoseconds is None:
        attributes.fail(name, "is not a date")
    return nanoseconds / _S
