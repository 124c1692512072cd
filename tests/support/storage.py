"""The object store that a registry redirects to for its blobs.

Thread rule: as for the registry behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.fault_server import Action, FaultServer, Response, Seen, changed
from tests.support.memory_registry import MemoryRegistry, blob_response


@dataclass
class Storage:
    """The object store that a registry redirects to: it refuses requests with credentials, as S3 does."""

    registry: MemoryRegistry
    repository: str = "app"

    def respond(self, seen: Seen) -> Response:
        if "authorization" in seen.headers:
            return Response(400, body=b"Only one auth mechanism allowed")
        found = re.search(r"sha256:[0-9a-f]{64}", seen.path)
        digest = found[0] if found else ""
        return blob_response(
            self.registry.repositories[self.repository].blobs.get(digest), digest, seen.headers.get("range")
        )


def to_storage(storage: FaultServer, query: str = "", *, cookie: str = "session=marked-cookie") -> Action:
    """Redirect to *storage*, with a signed *query*, where a blob would be answered."""

    def moved(right: Response) -> Response:
        digest = dict(right.headers).get("Docker-Content-Digest", "")
        headers = (("Location", f"{storage.url}/signed/{digest}{query}"), ("Set-Cookie", cookie))
        return Response(307, headers) if right.status in (200, 206) else right

    return changed(moved)
