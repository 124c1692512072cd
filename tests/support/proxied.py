"""A registry with a public name that only a proxy can reach.

    proxy = FaultServer(ProxyOf(registry))          http_proxy=http://… of this server
    hosts.toml of registry.invalid:                 server = "http://registry.invalid"

Thread rule: as for the registry behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from tests.support.fault_server import Response, Seen
from tests.support.memory_registry import MemoryRegistry

PUBLIC = "registry.invalid"  # resolves nowhere: only a proxy can know it


@dataclass
class ProxyOf:
    """What a proxy answers that is asked for http://registry.invalid/… and knows no other host."""

    registry: MemoryRegistry

    def respond(self, seen: Seen) -> Response:
        parts = urlsplit(seen.path)
        if parts.netloc != PUBLIC:
            return Response(502)
        return self.registry.respond(replace(seen, path=parts.path + (f"?{parts.query}" if parts.query else "")))
