"""A registry with an image and a blob, a storage that it redirects to, and a client that knows only loopback."""

from __future__ import annotations

import hashlib

from regfs.model.manifest import Descriptor
from regfs.registry.client import RegistryClient
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.hosts.endpoints import Hosts
from tests.support.client_rig import (
    PACE,
    RETRY,
    Rig,
    client_of,
    repository_of,
)
from tests.support.fault_server import (
    FaultServer,
    Response,
)
from tests.support.memory_registry import MemoryRegistry, blob_response

USER = ("user", "s3cret-word")
CONTENT = bytes(range(256)) * 1000
TAGS = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"tags":["v1"]}'


class Storage:
    """The object store that a registry redirects to: it refuses requests with credentials, as S3 does."""

    def respond(self, seen: object) -> Response:
        headers = seen.headers  # type: ignore[attr-defined]
        if "authorization" in headers:
            return Response(400, body=b"Only one auth mechanism allowed")
        return blob_response(CONTENT, "sha256:" + hashlib.sha256(CONTENT).hexdigest(), headers.get("range"))


STRANGER = Credentials({"HOME": "/nonexistent"})


def registry(**more: object) -> MemoryRegistry:
    made = MemoryRegistry(**more)  # type: ignore[arg-type]
    made.add_image("demo/app", "v1")
    return made


def with_blob(rig: Rig, **more: object) -> tuple[FaultServer, Descriptor]:
    application = registry(**more)
    return rig.server(application), application.add_blob("demo/app", CONTENT)


def fetched(client: RegistryClient, server: FaultServer, blob: Descriptor) -> bytes:
    return b"".join(client.blobs.stream(repository_of(server), blob))


def loopback_client(rig: Rig) -> RegistryClient:
    """Return a client that knows nothing but what loopback is."""
    return client_of(Hosts(), Credentials({"HOME": str(rig.directory)}), rig.stats, retry=RETRY, pace=PACE)
