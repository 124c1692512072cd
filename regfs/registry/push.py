"""Pushing: blobs in one piece, manifests and indexes under a tag or by their digest.

A blob that the registry has is not sent again. Mirrors are never written to. Source: distribution-spec, "Pushing
blobs", "Pushing manifests". Used by `regfs index --push`. Thread rule: shared by all threads.
"""

from __future__ import annotations

from regfs.errors import ProtocolViolation, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.model.media_types import OCTET_STREAM
from regfs.model.names import RepositoryName
from regfs.registry.endpoint_calls import Call, EndpointCalls, expected
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.messages import Answer, Origin, Request
from regfs.registry.http.redirects import resolved


class Pushes:
    """Pushes to repositories, with the right to pull and push."""

    def __init__(self, calls: EndpointCalls) -> None:
        self._calls = calls

    def blob(self, repository: RepositoryName, content: bytes) -> Digest:
        """See to it that *repository* has the blob *content*; return its digest. Raises what RegistryClient says."""
        digest = Digest.of(content)
        what = f"push of {repository}@{digest}"
        endpoint = self._endpoint(repository)
        head = self._send(endpoint, Call.push(repository, f"blobs/{digest}", "HEAD", what=what))
        head.close()
        if head.status == 200:
            return digest
        begun = self._send(endpoint, Call.push(repository, "blobs/uploads/", "POST", what=what, body=b""))
        with expected(begun, 202, what=what):
            path = _path_of(begun, what=what)
        path += f"{'&' if '?' in path else '?'}digest={digest}"
        put = Call.push(repository, path, "PUT", what=what, body=content, content_type=OCTET_STREAM)
        expected(self._send(endpoint, put), 201, 204, what=what).close()
        return digest

    def manifest(self, repository: RepositoryName, reference: str | Digest, content: bytes, media_type: str) -> Digest:
        """Let *reference*, a tag or the digest of *content*, name the manifest or index *content*; return its digest.

        What it names must be there. Raises what RegistryClient says.
        """
        what = f"push of {repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
        path = f"manifests/{reference}"
        call = Call.push(repository, path, "PUT", what=what, body=content, content_type=media_type)
        answer = expected(self._send(self._endpoint(repository), call), 201, what=what)
        answer.close()
        digest = Digest.of(content)
        stored_as = answer.headers.get("Docker-Content-Digest")
        if stored_as not in (None, str(digest)):
            raise ProtocolViolation(f"{what}: the registry has stored it as {stored_as}, its digest is {digest}")
        return digest

    def _endpoint(self, repository: RepositoryName) -> Endpoint:
        """Return the registry itself. Raises RegistryUnavailable where the user's hosts.toml names only mirrors."""
        for endpoint in self._calls.endpoints(repository.registry, "pull"):
            if endpoint.upstream:
                return endpoint
        raise RegistryUnavailable(f"{repository.registry}: its hosts.toml names no host that can be written to")

    def _send(self, endpoint: Endpoint, call: Call) -> Answer:
        return self._calls.send(endpoint, call)


def _path_of(answer: Answer, *, what: str) -> str:
    """Return path and query of where the upload that *answer* began goes on. Raises ProtocolViolation."""
    url = resolved(answer.url, answer.headers.get("Location"))
    if Origin.of(url) != Origin.of(answer.url):
        raise ProtocolViolation(f"{what}: the registry wants the bytes to be sent to another host, {Origin.of(url)}")
    return Request("PUT", url).target
