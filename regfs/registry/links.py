"""The Link header: where the next page is.

Dialects: several links in one header or in several headers, rel quoted or not, other parameters before it, relative
and absolute targets, an internal host behind a TLS proxy. Source: RFC 8288; distribution-spec, "Listing Tags".
Used by listing.py and referrers.py. Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

from regfs.errors import ProtocolViolation

_TARGET = re.compile(r"<([^<>]*)>", re.ASCII)
_PARAMETER = re.compile(r"""\s*;[\s;]*([A-Za-z][A-Za-z0-9*_-]*)[ \t]*=[ \t]*(?:"([^"]*)"|([^\s,;"]*))""", re.ASCII)
_TARGET_LIMIT = 8 * 1024
_UNSAFE = re.compile(r"[^\x21-\x7e]|%(?![0-9A-Fa-f]{2})", re.ASCII)


def next_target(values: Iterable[str]) -> str | None:
    """Return the target of the first link with `rel=next` in the Link header *values*, None where there is none."""
    for value in values:
        for target in _TARGET.finditer(value):
            if "next" in _relations(value, target.end()):
                return target.group(1)
    return None


def _relations(value: str, position: int) -> list[str]:
    """Return the relation types of the link whose target ends at *position*."""
    while parameter := _PARAMETER.match(value, position):
        if parameter.group(1).lower() == "rel":
            return (parameter.group(2) or parameter.group(3) or "").lower().split()
        position = parameter.end()
    return []


def next_page(url: str, values: Iterable[str]) -> str | None:
    """Return path and query of the page after *url*, None where that was the last one. Raises as page_of() does."""
    target = next_target(values)
    return None if target is None else page_of(url, target)


def page_of(url: str, target: str) -> str:
    """Return path and query of *target*, a reference that the page at *url* gives to the next one.

    Only path and query count: the host stays ours, so that no link leads a token to another one, and a registry that
    names an internal host behind its proxy still works. Raises ProtocolViolation where the address makes no sense:
    the list would be cut off there.
    """
    try:
        if len(target) > _TARGET_LIMIT or _UNSAFE.search(target):
            raise ValueError("a malformed URL")
        parts = urlsplit(urljoin(url, target))
        if parts.scheme not in ("http", "https"):
            raise ValueError("not a web address")
    except ValueError as error:
        here = urlsplit(url)
        raise ProtocolViolation(f"{here.netloc}{here.path}: the link to the next page leads nowhere: {error}") from None
    path = "/" + parts.path.lstrip("/")
    return f"{path}?{parts.query}" if parts.query else path
