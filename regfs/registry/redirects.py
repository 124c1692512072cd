"""Redirects, followed by hand: where a registry may send us, and what goes along.

Rules: at most ten hops; never from https to http; never from a registry on the internet to a private address; no
credential, custom header, cookie, client certificate or private authority crosses an origin. Sources: distribution-
spec, "Pulling blobs" (Authorization must not be forwarded); go-containerregistry, fetcher.go (private addresses).
Used by exchange.py. Pure; any thread.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from regfs.errors import ProtocolViolation
from regfs.registry.addresses import is_internal
from regfs.registry.message import SYSTEM_TRUST, Origin, Request

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_HOPS = 10
_LOCATION_LIMIT = 16 * 1024
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]", re.ASCII)
# What the answer depends on and no host can misuse.
_TRAVELS = frozenset({"accept", "range"})


def redirected(request: Request, location: str | None, *, first: Origin, to_private: bool) -> Request:
    """Return the request that *location* asks for after *request*, without what only *first* may see.

    *to_private* lets a registry on the internet redirect to private addresses, where an object store may be.
    Raises ProtocolViolation.
    """
    here = request.origin
    url = resolved(request.url, location)
    there = Origin.of(url)
    if here.scheme == "https" and there.scheme == "http":
        raise ProtocolViolation(f"{here}: redirects from https to http ({there})")
    if is_internal(there.host) and not is_internal(first.host) and not to_private:
        raise ProtocolViolation(f"{here}: redirects to the private address {there}")
    if there == here == first:
        return replace(request, url=url)
    headers = {name: value for name, value in request.headers.items() if name.lower() in _TRAVELS}
    return replace(request, url=url, headers=headers, tls=SYSTEM_TRUST)


def resolved(base: str, location: str | None) -> str:
    """Return the http or https URL that *location* means at *base*. Raises ProtocolViolation.

    The escapes of a signed URL must arrive untouched; one that is broken would be escaped again on its way.
    """
    where = Origin.of(base)
    if not location:
        raise ProtocolViolation(f"{where}: a redirect without a Location")
    if len(location) > _LOCATION_LIMIT or _BAD_ESCAPE.search(location) or _UNPRINTABLE.search(location):
        raise ProtocolViolation(f"{where}: a redirect with a malformed Location")
    try:
        url = urljoin(base, location).partition("#")[0]
        Origin.of(url)
        foreign_user = "@" in urlsplit(url).netloc
    except ValueError:
        raise ProtocolViolation(f"{where}: redirects to something that is no web address") from None
    if foreign_user:
        raise ProtocolViolation(f"{where}: redirects to an address with a user name in it")
    return url
