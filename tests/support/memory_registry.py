"""A registry in memory that does everything right, and its token server: the application behind a FaultServer.

Tests have three registries to choose from:

    MemoryRegistry behind a FaultServer   for faults: any byte of any answer may be wrong, each test has its own server
                                          in a millisecond, and what was asked is known
    DockerRegistry (registry.py)          for compatibility: Debian's docker-registry, one for each process of tests;
                                          skopeo and umoci work with it, and its answers are not of our making
    ReverseProxy (proxy.py)               where answers of a DockerRegistry are to be counted, delayed or replaced whole

Sources: distribution-spec; distribution, docs/content/spec/auth. Threads: any may ask; tests fill it before.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from tests.support.fault_server import Response, Seen

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(slots=True)
class Repository:
    """Manifests with their types and blobs by digest, tags, and what refers to what."""

    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: dict[str, list[dict[str, object]]] = field(default_factory=dict)


def error(status: int, code: str, message: str = "") -> Response:
    """Return an error as the specification wants it."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Response(status, (("Content-Type", "application/json"),), body)


class MemoryRegistry:
    """Answers like a registry. *users* makes it ask for Basic; *tokens* too makes it ask for a token instead.

    *realm* is the token server's URL, by default this server's own /token (a relative reference). A page of a list
    has *page_size* entries.
    """

    def __init__(
        self,
        *,
        users: dict[str, str] | None = None,
        tokens: bool = False,
        realm: str = "/token",
        page_size: int = 1000,
    ) -> None:
        self.repositories: dict[str, Repository] = {}
        self.users = users
        self.tokens = tokens
        self.realm = realm
        self.page_size = page_size
        self.public = users is None
        self.granted: dict[str, set[str]] = {}
        self.token_fields: dict[str, object] = {"expires_in": 300}
        self.refresh_tokens: set[str] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    # Filling it.

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def add_blob(self, name: str, content: bytes, *, media_type: str = LAYER) -> Descriptor:
        digest = Digest.of(content)
        self.repository(name).blobs[str(digest)] = content
        return Descriptor(media_type, digest, len(content))

    def add_manifest(self, name: str, content: bytes, *, tag: str | None = None, media_type: str = MANIFEST) -> Digest:
        digest = Digest.of(content)
        repository = self.repository(name)
        repository.manifests[str(digest)] = (content, media_type)
        if tag is not None:
            repository.tags[tag] = str(digest)
        return digest

    def add_image(self, name: str, tag: str, layer: bytes = b"layer") -> Digest:
        """Add an image of one layer, and return its manifest's digest."""
        config = self.add_blob(name, b'{"layer":"%d"}' % len(layer), media_type=CONFIG)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(config),
            "layers": [described(self.add_blob(name, layer))],
        }
        return self.add_manifest(name, json.dumps(document).encode(), tag=tag)

    def revoke(self) -> None:
        """Let every token that was given out be invalid from now on."""
        with self._lock:
            self.granted.clear()

    # Answering.

    def respond(self, seen: Seen) -> Response:
        path, _question, query_text = seen.path.partition("?")
        query = urllib.parse.parse_qs(query_text)
        if path == "/token":
            return self._token(seen, query)
        if not path.startswith("/v2/"):
            return error(404, "UNSUPPORTED")
        rest = path.removeprefix("/v2/")
        name, kind, reference = _parsed(rest)
        refused = self._refused(seen, name, kind)
        if refused is not None:
            return refused
        if rest == "":
            return Response(200, (("Content-Type", "application/json"),), b"{}")
        if rest == "_catalog":
            return self._page(path, query, "repositories", sorted(self.repositories))
        if name not in self.repositories:
            return error(404, "NAME_UNKNOWN", "repository name not known")
        repository = self.repositories[name]
        if kind == "tags":
            return self._page(path, query, "tags", sorted(repository.tags))
        if kind == "manifests":
            return _manifest(repository, reference)
        if kind == "blobs":
            return blob_response(repository.blobs.get(reference), reference, seen.headers.get("range"))
        return _referrers(repository, reference)

    def _page(self, path: str, query: dict[str, list[str]], key: str, entries: list[str]) -> Response:
        last = query.get("last", [""])[0]
        rest = [entry for entry in entries if entry > last]
        page = rest[: self.page_size]
        headers = [("Content-Type", "application/json")]
        if len(rest) > len(page):
            headers.append(("Link", f'<{path}?last={urllib.parse.quote(page[-1])}>; rel="next"'))
        return Response(200, tuple(headers), json.dumps({key: page}).encode())

    def _refused(self, seen: Seen, name: str, kind: str) -> Response | None:
        """Return the 401 for a request without the right to what it asks, None where it has it."""
        authorization = seen.headers.get("authorization", "")
        scope = "registry:catalog:*" if kind == "_catalog" else f"repository:{name}:pull"
        if self.tokens:
            given = self.granted.get(authorization.removeprefix("Bearer "), set())
            if scope in given or (given and not kind):
                return None
            asked = f',scope="{scope}"' if kind else ""
            wrong = ',error="invalid_token"' if authorization else ""
            challenge = f'Bearer realm="{self.realm}",service="registry.test"{asked}{wrong}'
        elif self.users is not None:
            if self._user(authorization) is not None:
                return None
            challenge = 'Basic realm="registry.test"'
        else:
            return None
        return error(401, "UNAUTHORIZED").with_header("WWW-Authenticate", challenge)

    def _token(self, seen: Seen, query: dict[str, list[str]]) -> Response:
        if seen.method == "POST":
            query = urllib.parse.parse_qs(seen.body.decode())
            if query.get("refresh_token", [""])[0] not in self.refresh_tokens:
                return error(401, "UNAUTHORIZED")
        elif not self.public and self._user(seen.headers.get("authorization", "")) is None:
            return error(401, "UNAUTHORIZED")
        token = f"token-{next(self._numbers)}"
        with self._lock:
            self.granted[token] = {scope for value in query.get("scope", []) for scope in value.split()}
        body = json.dumps({"token": token, **self.token_fields}).encode()
        return Response(200, (("Content-Type", "application/json"),), body)

    def _user(self, authorization: str) -> str | None:
        """Return the user whose Basic authorization this is."""
        try:
            user, _colon, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        except ValueError:
            return None
        return user if (self.users or {}).get(user) == password and authorization else None


def described(descriptor: Descriptor) -> dict[str, object]:
    """Return *descriptor* as JSON has it."""
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def blob_response(content: bytes | None, digest: str, byte_range: str | None) -> Response:
    """Return the answer to a GET of a blob, whole or one range of it."""
    if content is None:
        return error(404, "BLOB_UNKNOWN")
    headers = (("Content-Type", "application/octet-stream"), ("Docker-Content-Digest", digest))
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", byte_range or "")
    if match is None:
        return Response(200, headers, content)
    start = int(match.group(1))
    stop = min(int(match.group(2)) + 1 if match.group(2) else len(content), len(content))
    if start >= stop:
        return Response(416, (("Content-Range", f"bytes */{len(content)}"),))
    named = (*headers, ("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}"))
    return Response(206, named, content[start:stop])


def _parsed(rest: str) -> tuple[str, str, str]:
    """Return repository, kind and reference of a path below /v2/."""
    match = re.fullmatch(r"(.+)/(manifests|blobs|referrers)/([^/]+)|(.+)/(tags)/list", rest)
    if match is None:
        return "", rest, ""
    return match.group(1) or match.group(4), match.group(2) or match.group(5), match.group(3) or ""


def _manifest(repository: Repository, reference: str) -> Response:
    digest = repository.tags.get(reference, reference)
    if digest not in repository.manifests:
        return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
    content, media_type = repository.manifests[digest]
    return Response(200, (("Content-Type", media_type), ("Docker-Content-Digest", digest)), content)


def _referrers(repository: Repository, digest: str) -> Response:
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": repository.referrers.get(digest, [])}
    return Response(200, (("Content-Type", INDEX),), json.dumps(document).encode())
