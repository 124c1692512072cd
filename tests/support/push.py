"""Pushing to a registry with the standard library alone: blobs, manifests, and whole images made of tars.

image = Pusher(registry.url).image("library/hello-world", "latest", [tar_of({"hello": program})])
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import platform
import ssl
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


def host_architecture() -> str:
    """Return this machine's architecture as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def digest_of(content: bytes) -> str:
    """Return `sha256:…` of *content*."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def tar_of(files: Mapping[str, bytes], *, mode: int = 0o755) -> bytes:
    """Return a tar with these regular files, for tests that need no more than that."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, 1700000000
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image as it now is in a registry: the bytes of its documents, and the digests of its blobs."""

    digest: str
    manifest: bytes
    config: bytes
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    """Return the descriptor of *content*."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


class Pusher:
    """Pushes blobs and manifests to the registry at *url*, with a user's Basic credentials where given."""

    def __init__(
        self,
        url: str,
        *,
        user: tuple[str, str] | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._tls = tls
        self._headers = {}
        if user:
            self._headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def blob(self, repository: str, content: bytes) -> str:
        """Upload *content* and return its digest."""
        digest = digest_of(content)
        started = self._send("POST", f"{self._url}/v2/{repository}/blobs/uploads/", b"")
        location = urllib.parse.urljoin(self._url, started["Location"])
        separator = "&" if "?" in location else "?"
        self._send(
            "PUT", f"{location}{separator}digest={urllib.parse.quote(digest)}", content, "application/octet-stream"
        )
        return digest

    def manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> str:
        """Upload a manifest or index under a tag or its digest, and return its digest."""
        self._send("PUT", f"{self._url}/v2/{repository}/manifests/{reference}", content, media_type)
        return digest_of(content)

    def image(
        self,
        repository: str,
        tag: str,
        tars: Sequence[bytes],
        *,
        architecture: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Pushed:
        """Push an image whose layers are *tars*, the base first, compressed with gzip; *settings* is its `config`."""
        layers = [gzip.compress(tar, 6, mtime=0) for tar in tars]
        diff_ids = tuple(digest_of(tar) for tar in tars)
        config = json.dumps(
            {
                "architecture": architecture or host_architecture(),
                "os": "linux",
                "config": settings or {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created_by": f"layer {number}"} for number in range(len(tars))],
            }
        ).encode()
        for blob in (*layers, config):
            self.blob(repository, blob)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor(OCI_CONFIG, config),
                "layers": [descriptor(OCI_LAYER_GZIP, layer) for layer in layers],
            }
        ).encode()
        digest = self.manifest(repository, tag, manifest, OCI_MANIFEST)
        return Pushed(digest, manifest, config, tuple(map(digest_of, layers)), diff_ids)

    def index(self, repository: str, tag: str, images: Mapping[str, Pushed]) -> str:
        """Push an index that names *images* by `os/architecture[/variant]`, and return its digest."""
        manifests = []
        for name, image in images.items():
            words = dict(zip(("os", "architecture", "variant"), name.split("/"), strict=False))
            manifests.append(descriptor(OCI_MANIFEST, image.manifest) | {"platform": words})
        content = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
        return self.manifest(repository, tag, content, OCI_INDEX)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest, and with it the tags that name it."""
        self._send("DELETE", f"{self._url}/v2/{repository}/manifests/{digest}", b"")

    def _send(self, method: str, url: str, content: bytes, media_type: str = "") -> http.client.HTTPMessage:
        headers = self._headers | ({"Content-Type": media_type} if media_type else {})
        request = urllib.request.Request(url, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._tls) as response:
                answered: http.client.HTTPMessage = response.headers
                return answered
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from error
