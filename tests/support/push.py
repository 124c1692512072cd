"""Pushing to a registry with the standard library alone: blobs, manifests, and whole images.

A Pusher serves one registry: `Pusher(registry.url).image("library/hello-world", "latest", hello_image())`.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request

from regfs.model.digest import Digest
from tests.support.images import BuiltImage


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
        digest = str(Digest.of(content))
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
        return str(Digest.of(content))

    def image(self, repository: str, tag: str, image: BuiltImage) -> BuiltImage:
        """Push *image*, let *tag* name it, and return it."""
        for blob in image.blobs().values():
            self.blob(repository, blob)
        self.manifest(repository, tag, image.manifest, image.media_type)
        return image

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
