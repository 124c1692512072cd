"""Pushing: blobs in one piece, manifests and indexes under a tag or by their digest.

A blob that the registry has is not sent again. Mirrors are never written to. Source: distribution-spec, "Pushing
blobs", "Pushing manifests". Used by `regfs index --push` and `regfs record --push`. Thread rule: shared by all threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from regfs.errors import NotFound, ProtocolViolation, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Index, parse_manifest
from regfs.model.media_types import OCI_INDEX, OCTET_STREAM
from regfs.model.names import RepositoryName
from regfs.model.render import render_index
from regfs.registry.endpoint_calls import Call, EndpointCalls, expected
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.messages import Answer, Origin, Request
from regfs.registry.http.redirects import resolved
from regfs.registry.manifests import Manifests
from regfs.registry.referrers import referrers_tag


class Pushes:
    """Pushes to repositories, with tokens for pull and push."""

    def __init__(self, calls: EndpointCalls, manifests: Manifests) -> None:
        self._calls = calls
        self._manifests = manifests

    def blob(self, repository: RepositoryName, content: bytes) -> Digest:
        """Upload the blob *content* unless *repository* has it; return its digest. Raises as RegistryClient does."""
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
        """Push the manifest or index *content* under *reference*, a tag or its digest; return its digest.

        The registry must have everything that it names. Raises as RegistryClient does.
        """
        self._manifest(repository, reference, content, media_type)
        return Digest.of(content)

    def referrer(self, repository: RepositoryName, content: bytes, listed: Descriptor, *, subject: Digest) -> None:
        """Push the manifest *content*, which refers to *subject*, so that a list of referrers has it as *listed*.

        For a registry without the referrers API the list is an index under a tag, which is read, changed and written
        again: one of two simultaneous pushes may be lost. Source: distribution-spec, "Pushing Manifests with Subject".
        Raises as RegistryClient does.
        """
        answer = self._manifest(repository, listed.digest, content, listed.media_type)
        if answer.headers.get("OCI-Subject") is not None:
            return
        tag = referrers_tag(subject)
        others: Sequence[Descriptor] = ()
        with suppress(NotFound):
            document = self._manifests.fetch(repository, tag)
            index = parse_manifest(document.content, content_type=document.content_type)
            others = index.manifests if isinstance(index, Index) else ()
        index_content = render_index([*(each for each in others if each.digest != listed.digest), listed])
        self._manifest(repository, tag, index_content, OCI_INDEX)

    def _manifest(self, repository: RepositoryName, reference: str | Digest, content: bytes, media_type: str) -> Answer:
        what = f"push of {repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
        path = f"manifests/{reference}"
        call = Call.push(repository, path, "PUT", what=what, body=content, content_type=media_type)
        answer = expected(self._send(self._endpoint(repository), call), 201, what=what)
        answer.close()
        digest = Digest.of(content)
        stored_as = answer.headers.get("Docker-Content-Digest")
        if stored_as not in (None, str(digest)):
            raise ProtocolViolation(f"{what}: the registry has stored it as {stored_as}, its digest is {digest}")
        return answer

    def _endpoint(self, repository: RepositoryName) -> Endpoint:
        """Return the registry itself. Raises RegistryUnavailable where the user's hosts.toml names only mirrors."""
        for endpoint in self._calls.endpoints(repository.registry, "pull"):
            if endpoint.upstream:
                return endpoint
        raise RegistryUnavailable(f"{repository.registry}: its hosts.toml names no host that can be written to")

    def _send(self, endpoint: Endpoint, call: Call) -> Answer:
        return self._calls.send(endpoint, call)


def _path_of(answer: Answer, *, what: str) -> str:
    """Return path and query of the upload session that *answer* began. Raises ProtocolViolation."""
    url = resolved(answer.url, answer.headers.get("Location"))
    if Origin.of(url) != Origin.of(answer.url):
        raise ProtocolViolation(f"{what}: the registry wants the bytes to be sent to another host, {Origin.of(url)}")
    return Request("PUT", url).target
