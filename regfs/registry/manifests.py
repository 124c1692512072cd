"""Manifests and indexes: from a tag to its descriptor, from a reference to the exact bytes.

A manifest's digest is computed from its bytes. What a registry says in Docker-Content-Digest is used only to see
whether a tag has moved. Sources: distribution-spec, "Pulling manifests"; containerd, resolver.go. Used by images.
Thread rule: shared by all threads.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
from dataclasses import dataclass, field, replace
from functools import partial

from cachetools import TTLCache

from regfs.errors import (
    BadContent,
    DigestMismatch,
    InvalidName,
    NotFound,
    ProtocolViolation,
    TooLarge,
    Unsupported,
)
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.registry.endpoint_calls import Call, EndpointCalls, expected
from regfs.registry.hosts.endpoints import HUB_HOST, Endpoint
from regfs.registry.http.messages import Answer

log = logging.getLogger(__name__)

_MODERN = ", ".join(
    (
        media_types.OCI_INDEX,
        media_types.OCI_MANIFEST,
        media_types.DOCKER_INDEX,
        media_types.DOCKER_MANIFEST,
        media_types.OCI_ARTIFACT,
    )
)
# Without the OCI types some registries answer 404, with */* alone others convert to schema 1.
ACCEPT = f"{_MODERN}, {media_types.DOCKER_SCHEMA1_SIGNED}, {media_types.DOCKER_SCHEMA1}, */*;q=0.1"
# Refusals of a HEAD that a GET may not meet: servers that know no HEAD there, or break over it, and proxies that fetch
# a manifest by GET only and say 404 before (Nexus).
_HEAD_SAYS_LITTLE = frozenset({400, 401, 403, 404, 405, 406, 410, 500, 501})
_HEAD_REFUSED_S = 600.0
_RECENT_BYTES = 2 * DOCUMENT_LIMIT


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or index: its exact bytes, the Content-Type of the answer, and the digest that the bytes have."""

    content: bytes = field(repr=False)
    content_type: str
    digest: Digest

    @property
    def descriptor(self) -> Descriptor:
        """What describes these bytes."""
        return Descriptor(self.content_type, self.digest, len(self.content))


class Manifests:
    """Fetches manifests and indexes, and verifies them."""

    def __init__(self, calls: EndpointCalls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        # Where HEAD is refused, resolving a tag fetches its manifest, which is asked for by digest right afterwards.
        self._recent: TTLCache[tuple[RepositoryName, Digest], FetchedManifest] = TTLCache(
            _RECENT_BYTES, 30.0, getsizeof=lambda document: len(document.content)
        )
        # Where a HEAD was refused and a GET answered. The opposite is not remembered: that both refuse one tag says
        # nothing about the next.
        self._head_is_refused: TTLCache[str, bool] = TTLCache(1024, _HEAD_REFUSED_S)

    def resolve(self, repository: RepositoryName, tag: str, *, may_be_missing: bool = False) -> Descriptor:
        """Return the descriptor of the manifest that *tag* points to now: by HEAD, which costs no quota, if possible.

        A tag that *may_be_missing* is asked for by GET at once, but not on Docker Hub: only a GET is believed when it
        says that a tag is not there. Raises what RegistryClient says; NotFound also where the repository is missing.
        """
        ask = partial(self._resolve, repository, tag, may_be_missing)
        return self._calls.first_of(repository.registry, "resolve", ask)

    def fetch(self, repository: RepositoryName, reference: str | Digest) -> FetchedManifest:
        """Return the manifest or index that *reference*, a tag or a digest, names.

        Its bytes are exact. Their digest is verified where *reference* is one, and computed where it is a tag. A signed
        schema 1 manifest comes without its signatures, because its digest is over the rest. Wrong bytes are asked for
        once more. Raises what RegistryClient says.
        """
        if not isinstance(reference, Digest):
            return self._calls.first_of(repository.registry, "resolve", partial(self._get, repository, reference))
        with self._lock:
            recent = self._recent.get((repository, reference))
        if recent is not None:
            return recent
        reference.hasher()  # raises Unsupported: bytes that cannot be verified are not worth a request
        return self._calls.first_of(repository.registry, "pull", partial(self._get, repository, reference))

    def _resolve(self, repository: RepositoryName, tag: str, may_be_missing: bool, endpoint: Endpoint) -> Descriptor:
        """Ask by HEAD, which costs no quota; by GET where HEAD is refused or says too little: GET decides.

        If the tag *may_be_missing*, GET comes first: after a HEAD that says 404 it would be sent anyway, and the
        manifest of a tag that is there is mostly read next. Not on Docker Hub, where each GET counts as a pull.
        """
        if may_be_missing and endpoint.host != HUB_HOST:
            try:
                return self._keep(repository, self._get(repository, tag, endpoint, as_named=True))
            except (TooLarge, BadContent) as failure:
                log.info("%s; asking by HEAD what the tag names", failure)
        with self._lock:
            is_refused = endpoint.base in self._head_is_refused
        if not is_refused:
            call = _call(repository, tag, method="HEAD")
            what = call.what
            answer = self._calls.send(endpoint, call)
            answer.close()
            if answer.status == 200 and (described := _described(answer)) is not None:
                return described
            if answer.status == 404 and endpoint.host == HUB_HOST:
                raise NotFound(f"{what}: {endpoint.host} has no such tag")  # known to be right, and a GET costs quota
            expected(answer, 200, *_HEAD_SAYS_LITTLE, what=what)
            is_refused = answer.status != 200
        descriptor = self._keep(repository, self._get(repository, tag, endpoint))
        if is_refused:
            with self._lock:
                self._head_is_refused[endpoint.base] = True
        return descriptor

    def _keep(self, repository: RepositoryName, document: FetchedManifest) -> Descriptor:
        """Keep *document*, which a tag named, for the request by digest that follows; return its descriptor."""
        with self._lock:
            if len(document.content) <= _RECENT_BYTES:
                self._recent[repository, document.digest] = document
        return document.descriptor

    def _get(
        self, repository: RepositoryName, reference: str | Digest, endpoint: Endpoint, *, as_named: bool = False
    ) -> FetchedManifest:
        """Return the document that *reference* names. *as_named*: DigestMismatch where a header has another digest."""
        call = _call(repository, reference)
        for is_again in (False, True):
            answer = self._calls.send(endpoint, call)
            if answer.content_type in media_types.SCHEMA1_TYPES:
                # Very old servers misread a list of types and convert: asked without the old types, they may not.
                modern = self._calls.send(endpoint, replace(call, headers={"Accept": _MODERN}))
                answer, spare = (modern, answer) if modern.status == 200 else (answer, modern)
                spare.close()
            with expected(answer, 200, what=call.what):
                content = answer.read(DOCUMENT_LIMIT, what=call.what)
            try:
                return _verified(answer, content, reference, what=call.what, as_named=as_named)
            except DigestMismatch as error:  # a proxy on the way may have corrupted it
                if is_again or as_named:
                    raise
                log.warning("%s; asking once more", error)
        raise AssertionError("unreachable")


def _call(repository: RepositoryName, reference: str | Digest, *, method: str = "GET") -> Call:
    what = f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
    call = Call.pull(repository, f"manifests/{reference}", what=what)
    return replace(call, method=method, headers={"Accept": ACCEPT}, body_limit=DOCUMENT_LIMIT)


def _described(answer: Answer) -> Descriptor | None:
    """Return the descriptor in the headers of a HEAD's answer, None where one part is missing or strange."""
    try:
        digest = Digest.parse(answer.headers.get("Docker-Content-Digest") or "")
        digest.hasher()
    except (InvalidName, Unsupported):
        return None
    media_type = answer.content_type
    if media_type not in media_types.DOCUMENT_TYPES or not answer.content_length:
        return None
    if media_type in media_types.SCHEMA1_TYPES:
        return None  # the length counts the signatures, the digest does not
    return Descriptor(media_type, digest, answer.content_length)


def _verified(answer: Answer, content: bytes, reference: str | Digest, *, what: str, as_named: bool) -> FetchedManifest:
    """Return *content* under its own digest. Raises DigestMismatch, ProtocolViolation (a web page)."""
    content_type = answer.content_type
    if isinstance(reference, Digest):
        if reference.matches(content):
            return FetchedManifest(content, content_type, reference)
        payload = _schema1_payload(content)
        if payload is not None and reference.matches(payload):
            return FetchedManifest(payload, media_types.DOCKER_SCHEMA1, reference)
        raise DigestMismatch(
            f"{what}: {answer.request.origin} sent {len(content)} bytes with the digest {Digest.of(content)}"
        )
    if not content.lstrip().startswith(b"{") and not content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ProtocolViolation(f"{what}: {answer.request.origin} sent no manifest but {content_type or 'something'!r}")
    payload = _schema1_payload(content)
    if payload is not None:
        return FetchedManifest(payload, media_types.DOCKER_SCHEMA1, Digest.of(payload))
    digest = Digest.of(content)
    said = answer.headers.get("Docker-Content-Digest")
    if said is not None and said != str(digest):
        differs = f"{what}: {answer.request.origin} names {said[:100]!r}, the bytes are {digest}"
        if as_named:
            raise DigestMismatch(differs)
        log.warning("%s", differs)
    return FetchedManifest(content, content_type, digest)


def _schema1_payload(content: bytes) -> bytes | None:
    """Return what a signed schema 1 manifest signs: the digest of such a manifest is over these bytes.

    None where *content* is no such document. The first signature says in its `protected` header how many bytes of
    the text belong to the payload and how it ended. Source: libtrust, jsonsign.go.
    """
    if b'"signatures"' not in content or b'"fsLayers"' not in content:
        return None
    try:
        protected = json.loads(content)["signatures"][0]["protected"]
        header = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
        length, tail = header["formatLength"], header["formatTail"]
        ending = base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4))
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
        return None
    if not isinstance(length, int) or not 0 < length < len(content) or len(ending) > 16:
        return None
    return content[:length] + ending
