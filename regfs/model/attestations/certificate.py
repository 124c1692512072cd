"""Reads the names of the subject and of Fulcio's issuer from an X.509 certificate. Verifies nothing.

    Certificate ::= SEQUENCE { TBSCertificate, … }
    TBSCertificate ::= SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, key, …, [3] extensions }
    Extension ::= SEQUENCE { OID, BOOLEAN DEFAULT FALSE, OCTET STRING }

Two extensions are read: subjectAltName (2.5.29.17), and Fulcio's issuer of the identity (1.3.6.1.4.1.57264.1.1, a plain
string, or 1.3.6.1.4.1.57264.1.8, a UTF8String). Sources: RFC 5280, section 4; Fulcio, docs/oid-info.md. Used by
documents.py. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from regfs.errors import BadContent

_LIMIT = 1 << 16
_MOST_NAMES = 16
_SEQUENCE, _SET, _OID, _OCTETS, _UTF8 = 0x30, 0x31, 0x06, 0x04, 0x0C
_EXTENSIONS = 0xA3
_VERSION = 0xA0
_NAMES = {0x81, 0x82, 0x86}  # an e-mail address, a DNS name, a URI: [1], [2] and [6] of GeneralName
_ALT_NAME = bytes.fromhex("551d11")
_FULCIO = bytes.fromhex("2b0601040183bf3001")
_OLD_ISSUER, _ISSUER = _FULCIO + b"\x01", _FULCIO + b"\x08"
_COMMON_NAME = bytes.fromhex("550403")


class Identity(NamedTuple):
    """The names of a certificate's subject, and the URL of the identity provider that Fulcio trusted, "" if absent."""

    names: tuple[str, ...]
    issuer: str

    def __str__(self) -> str:
        named = ", ".join(self.names) or "a certificate without a name"
        return f"{named} (issuer {self.issuer})" if self.issuer else named


def identity_in(der: bytes) -> Identity:
    """Return the names in the certificate *der*, not verified. Raises BadContent if it is not a certificate."""
    if len(der) > _LIMIT:
        raise BadContent(f"a certificate of {len(der)} bytes")
    fields = list(_parts(_only(_only(der, _SEQUENCE, first=True), _SEQUENCE, first=True)))
    if fields and fields[0][0] == _VERSION:
        fields = fields[1:]
    if len(fields) < 6:
        raise BadContent("it is not a certificate")
    names: list[str] = []
    issuer = ""
    for oid, value in _extensions(fields):
        if oid == _ALT_NAME:
            names += [_text(name) for tag, name in _parts(_only(value, _SEQUENCE)) if tag in _NAMES]
        elif oid == _ISSUER:
            issuer = _text(_only(value, _UTF8))
        elif oid == _OLD_ISSUER:
            issuer = issuer or _text(value)
    return Identity(tuple(names[:_MOST_NAMES]) or _common_names(fields[4][1]), issuer)


def _extensions(fields: list[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for tag, content in fields:
        if tag != _EXTENSIONS:
            continue
        for _, extension in _parts(_only(content, _SEQUENCE)):
            parts = list(_parts(extension))
            if len(parts) >= 2 and parts[0][0] == _OID and parts[-1][0] == _OCTETS:
                yield parts[0][1], parts[-1][1]


def _common_names(name: bytes) -> tuple[str, ...]:
    found = []
    for tag, relative in _parts(name):
        for _, attribute in _parts(relative) if tag == _SET else ():
            parts = list(_parts(attribute))
            if len(parts) == 2 and parts[0] == (_OID, _COMMON_NAME):
                found.append(_text(parts[1][1]))
    return tuple(found[:_MOST_NAMES])


def _only(content: bytes, tag: int, *, first: bool = False) -> bytes:
    """Return the content of the one value in *content*, or with *first* of its first value; its type must be *tag*."""
    parts = _parts(content)
    found = next(parts, None)
    if found is None or found[0] != tag or (not first and next(parts, None) is not None):
        raise BadContent("it is not a certificate")
    return found[1]


def _parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each value in *content*. Source: X.690, sections 8.1 and 10.1."""
    at = 0
    while at < len(content):
        header = content[at : at + 6]
        if len(header) < 2 or header[0] & 0x1F == 0x1F:
            raise BadContent("it is not DER")
        size, start = header[1], at + 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 3 or len(header) < 2 + count:
                raise BadContent("it is not DER")
            size, start = int.from_bytes(header[2 : 2 + count], "big"), start + count
        if start + size > len(content):
            raise BadContent("it is cut off")
        yield header[0], content[start : start + size]
        at = start + size


def _text(content: bytes) -> str:
    return content[:1024].decode("utf-8", "replace")
