"""Docker Hub as regfs meets it, at a server of this machine.

    hub = HubLike()                           refuses what it does not have (401), and has no catalog
    server = FaultServer(hub)
    Shown(cache, hosts=hub_at(tmp_path, server.url))     docker.io is asked there

Thread rule: tests fill it before it is asked.
"""

from __future__ import annotations

from pathlib import Path

from regfs.registry.hosts.endpoints import Hosts
from tests.support.fault_server import Response, Seen
from tests.support.images import BuiltImage
from tests.support.memory_registry import MemoryRegistry, error


class HubLike(MemoryRegistry):
    """A registry that says 401 for every repository that it does not have, and for its catalog."""

    def respond(self, seen: Seen) -> Response:
        path = seen.path.partition("?")[0].removeprefix("/v2/")
        name = next((path.rpartition(kind)[0] for kind in ("/manifests/", "/blobs/", "/tags/list") if kind in path), "")
        if name not in self.repositories:
            refusal = error(401, "UNAUTHORIZED", "authentication required")
            return refusal.with_header("WWW-Authenticate", 'Basic realm="hub"')
        return super().respond(seen)

    def push(self, name: str, tag: str, image: BuiltImage) -> BuiltImage:
        """Put *image* into the registry and let *tag* name it."""
        for content in image.blobs().values():
            self.add_blob(name, content)
        self.add_manifest(name, image.manifest, tag=tag, media_type=image.media_type)
        return image


def hub_at(directory: Path, url: str) -> Hosts:
    """Return hosts by which docker.io is asked at *url*; their files are in *directory*."""
    place = directory / "hosts/docker.io"
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(f'server = "{url}"\n')
    return Hosts(hosts_directories=[place.parent])
