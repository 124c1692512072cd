"""Decodes base64, PEM and JSON inside signatures, which are untrusted. Used by this package. Pure; any thread."""

from __future__ import annotations

import base64
import binascii
import re

from regfs.errors import BadContent, TooLarge
from regfs.model.strict_json import Fields, parse_document

_PEM = re.compile(r"-----BEGIN ([A-Z ]{1,40})-----([A-Za-z0-9+/=\s]*+)-----END \1-----", re.ASCII)
_MOST_PEM = 1 << 16
_MOST_BLOCKS = 16


def from_base64(text: str) -> bytes:
    """Decode *text* from base64, in either alphabet, with or without padding. Raises BadContent."""
    try:
        standard = text.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadContent("a value is not base64") from None


def from_pem(text: str) -> list[bytes]:
    """Return the DER of each block of *text*. Raises BadContent if there is no block, TooLarge. Source: RFC 7468."""
    if len(text) > _MOST_PEM:
        raise TooLarge(f"a text in PEM has {len(text)} bytes, more than {_MOST_PEM}")
    found = [from_base64("".join(each[2].split())) for each in _PEM.finditer(text)]
    if not found:
        raise BadContent("a value is not in PEM")
    if len(found) > _MOST_BLOCKS:
        raise TooLarge(f"a text in PEM has {len(found)} blocks, more than {_MOST_BLOCKS}")
    return found


def from_json(content: bytes) -> Fields:
    """Return the object *content*. Raises BadContent, TooLarge."""
    return parse_document(content, error=BadContent)
