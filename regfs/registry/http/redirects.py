"""Redirects: where a registry may send a request, and which headers go along.

Rules: at most ten hops; never from https to http; never from a registry on the internet to a private address; no
credential, custom header, cookie, client certificate or private authority crosses an origin. Sources: distribution-
spec, "Pulling blobs" (Authorization must not be forwarded); go-containerregistry, fetcher.go (private addresses).
Used by retrying.py. Pure; any thread.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urljoin

from regfs.errors import ProtocolViolation
from regfs.registry.http.addresses import is_internal
from regfs.registry.http.messages import Origin, Request
from regfs.registry.http.trust import SYSTEM_TRUST

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_HOPS = 10
_LOCATION_LIMIT = 16 * 1024
# Characters that would end the request line or a field of it. Other bytes, of any encoding, were read as Latin-1.
_UNSENDABLE = re.compile(r"[^\x21-\x7e\x80-\xff]")
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?")
# A host that requests, urllib3 and a proxy read in the same way.
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# Headers that the answer depends on and no host can misuse.
_TRAVELS = frozenset({"accept", "range"})


def redirected(request: Request, location: str | None, *, first: Origin) -> Request:
    """Return the request that *location* asks for after *request*, without the headers and trust of *first* alone.

    Raises ProtocolViolation.
    """
    here = request.origin
    url = resolved(request.url, location)
    there = Origin.of(url)
    if here.scheme == "https" and there.scheme == "http":
        raise ProtocolViolation(f"{here}: redirects from https to http ({there})")
    if is_internal(there.host) and not is_internal(first.host):
        raise ProtocolViolation(f"{here}: redirects to the private address {there}")
    if there == here == first:
        return replace(request, url=url)
    headers = {name: value for name, value in request.headers.items() if name.lower() in _TRAVELS}
    return replace(request, url=url, headers=headers, tls=SYSTEM_TRUST)


def resolved(base: str, location: str | None) -> str:
    """Return the http or https URL that *location* means at *base*. Raises ProtocolViolation.

    Path and query stay as they are, byte by byte: a storage checks a signature over exactly these bytes. Only a
    relative path is merged with the base's. Source: RFC 3986, section 5 and appendix B.
    """
    where = Origin.of(base)
    if not location:
        raise ProtocolViolation(f"{where}: a redirect without a Location")
    if len(location) > _LOCATION_LIMIT or _UNSENDABLE.search(location):
        raise ProtocolViolation(f"{where}: a redirect with a malformed Location")
    scheme, authority, path, query = _parts(location)
    here_scheme, here_authority, here_path, here_query = _parts(base)
    if authority is None:
        if scheme is not None:
            raise ProtocolViolation(f"{where}: redirects to something that is not a web address")
        authority = here_authority or ""
        if not path:
            path, query = here_path, query or here_query
        elif not path.startswith("/"):
            path = urljoin(here_path or "/", path)
    elif "@" in authority:
        raise ProtocolViolation(f"{where}: redirects to an address with a user name in it")
    url = f"{(scheme or here_scheme or '').lower()}://{authority}{path}{query}"
    try:
        if not _AUTHORITY.fullmatch(authority):
            raise ValueError("no host and port")
        Origin.of(url)
    except ValueError:
        raise ProtocolViolation(f"{where}: redirects to something that is not a web address") from None
    return url


def _parts(reference: str) -> tuple[str | None, str | None, str, str]:
    """Return scheme, authority, path and query (with its question mark) of *reference*, without its fragment."""
    found = _REFERENCE.match(reference)
    assert found is not None  # it matches everything
    return found.group(1), found.group(2), found.group(3), found.group(4) or ""
