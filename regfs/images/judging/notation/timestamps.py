"""Verifies RFC 3161 timestamps in notation's signatures, with the package rfc3161-client (extra sigstore).

notation stores only the token, and the package reads answers of an authority, so the token is wrapped in an answer
"granted":
TimeStampResp ::= SEQUENCE { PKIStatusInfo, TimeStampToken }. Revocation of an authority's certificate is not checked.
Sources: RFC 3161, section 2.4.2; Notary Project, trust-store-trust-policy.md, "Validate Trusted Timestamp". Used by
rules.py. Thread rule: a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regfs.errors import BadConfiguration, BadContent

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_GRANTED = bytes.fromhex("3003020100")
_SEQUENCE = 0x30
_MOST_TOKEN = 1 << 16


def stamped_between(token: bytes, signature: bytes, roots: Sequence[Certificate]) -> tuple[float, float]:
    """Return the earliest and the latest time of the timestamp *token* of *signature*, in seconds since 1970.

    Raises BadContent unless it is by an authority of *roots*, BadConfiguration without the package.
    """
    try:
        from rfc3161_client import VerifierBuilder, decode_timestamp_response
    except ImportError:
        raise BadConfiguration(
            "a signature has a timestamp, and the package rfc3161-client is not there: pip install 'regfs[sigstore]'"
        ) from None
    if len(token) > _MOST_TOKEN:
        raise BadContent(f"its timestamp has {len(token)} bytes")
    try:
        answer = decode_timestamp_response(_sequence(_GRANTED + token))
        verifier = VerifierBuilder()
        for root in roots:
            verifier = verifier.add_root_certificate(root)
        verifier.build().verify_message(answer, signature)
        about = answer.tst_info
        accuracy = about.accuracy
        at_s = about.gen_time.timestamp()
    except Exception as error:  # for invalid bytes, the package raises errors of its DER parser
        raise BadContent(f"its timestamp cannot be verified: {str(error)[:200] or type(error).__name__}") from None
    if accuracy is None:
        return at_s, at_s
    within_s = (accuracy.seconds or 0) + (accuracy.millis or 0) / 1e3 + (accuracy.micros or 0) / 1e6
    return at_s - within_s, at_s + within_s


def _sequence(content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([_SEQUENCE, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([_SEQUENCE, 0x80 | len(length)]) + length + content
