"""The Link header: where the next page is.

Half a list must never look like a whole one. So a header is followed in every spelling with one meaning, and is an
error otherwise. Dialects: several links in one header or in several headers, rel quoted or not, or missing, other
parameters before it, no angle brackets (Quay), relative and absolute targets, an internal host behind a TLS proxy.
Source: RFC 8288; distribution-spec, "Listing Tags". Used by listing.py, referrers.py and docker_hub.py. Pure; any
thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from regfs.errors import ProtocolViolation

_BETWEEN = re.compile(r"[\s,]*")
# Without brackets a comma belongs to the target unless a space follows it.
_TARGET = re.compile(r"""<([^<>]*)>|([^\s<>;,"]+(?:,[^\s<>;,"]+)*)""")
_PARAMETER = re.compile(r"""\s*;[\s;]*([^\s=;,<>"]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;]*)))?""")
_END = re.compile(r"[\s;]*(?:,|$)")
_TARGET_LIMIT = 8 * 1024
_UNSAFE = re.compile(r"[^\x21-\x7e\x80-\xff]")


class _Link(NamedTuple):
    """One link: its target, and its relation types in lower case, None where it names none."""

    target: str
    relations: list[str] | None


def next_page(url: str, values: Iterable[str]) -> str | None:
    """Return path and query of the page after *url*, None where that was the last one. *values*: of Link headers.

    Raises ProtocolViolation if a header has no meaning, or more than one, and what page_of() raises.
    """
    links: list[_Link] = []
    is_readable = True
    for value in values:
        try:
            links += list(_links(value))
        except ValueError:
            is_readable = False
    # The only link that a list needs is the one to its next page, so a single link without a relation is that.
    targets = [link.target for link in links if link.relations is not None and "next" in link.relations]
    targets = targets or [link.target for link in links if link.relations is None]
    pages = {page_of(url, target) for target in targets}
    if len(pages) > 1 or not (pages or is_readable):
        here = urlsplit(url)
        raise ProtocolViolation(f"{here.netloc}{here.path}: its Link header does not tell which page is the next")
    return next(iter(pages), None)


def _links(value: str) -> Iterator[_Link]:
    """Yield the links of one header. Raises ValueError where it is malformed."""
    position = _BETWEEN.match(value).end()  # type: ignore[union-attr]  # it matches everything
    while position < len(value):
        target = _TARGET.match(value, position)
        if target is None:
            raise ValueError("no target")
        relations, position = _relations(value, target.end())
        yield _Link((target.group(1) or target.group(2) or "").strip(), relations)
        end = _END.match(value, position)
        if end is None:
            raise ValueError("a link that goes on after its end")
        position = _BETWEEN.match(value, end.end()).end()  # type: ignore[union-attr]


def _relations(value: str, position: int) -> tuple[list[str] | None, int]:
    """Return the relation types of the link whose target ends at *position*, and where its parameters end."""
    relations: list[str] | None = None
    while parameter := _PARAMETER.match(value, position):
        if parameter.group(1).lower() == "rel" and relations is None:  # RFC 8288, section 3.3: the first one counts
            relations = (
                (parameter.group(2) or parameter.group(3) or "").lower().replace("'", "").replace('"', "").split()
            )
        position = parameter.end()
    return relations, position


def page_of(url: str, target: str) -> str:
    """Return path and query of *target*, a reference that the page at *url* gives to the next one.

    Only path and query count; the host stays. So no link sends a token to another host, and a registry that names an
    internal host behind its proxy still works. Raises ProtocolViolation if the address makes no sense: the list would
    end there.
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
