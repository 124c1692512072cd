"""Tells internal hosts from public ones: loopback, link-local and private addresses in URLs.

A registry on the internet must not send regfs, or a credential, to a machine that only regfs can reach. Names are not
resolved for this: the rule is about URLs that another server sends. Used by redirects.py, auth/tokens.py, transport.py
and hosts/endpoints.py. Pure; any thread.
"""

from __future__ import annotations

import ipaddress


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_loopback(host: str) -> bool:
    """Tell whether *host* is this machine: `localhost`, `127.0.0.0/8`, `::1`."""
    address = _literal(host)
    return host == "localhost" if address is None else address.is_loopback


def is_internal(host: str) -> bool:
    """Tell whether *host* is written as an address that is not of the public internet, or is `localhost`.

    Spellings such as `2130706433`, `0x7f.1` and `127.1` count: the system's resolver takes them for addresses.
    """
    address = _literal(host)
    if address is not None:
        return not address.is_global
    labels = host.lower().rstrip(".").split(".")
    if labels[-1] == "localhost":
        return True
    return labels[-1].isdigit() or labels[-1].startswith("0x")
