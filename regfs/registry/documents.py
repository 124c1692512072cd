"""Manifests and indexes: a tag to a descriptor, a reference to the exact bytes.

Used by client.py. The name of a document is the digest that we computed; what a registry says in
Docker-Content-Digest only serves to notice that a tag has not moved. Sources: distribution-spec, "Pulling manifests";
containerd, resolver.go. Thread rule: shared by all threads.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
from dataclasses import dataclass, field, replace

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
from regfs.registry.calls import Call, Calls, expected
from regfs.registry.hosts.endpoints import HUB_HOST, Endpoint
from regfs.registry.http.message import Answer

log = logging.getLogger(__name__)

DOCUMENT_LIMIT = 4 * 1024 * 1024
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
    """A document as the registry gave it, and the digest that it was verified to have."""

    content: bytes = field(repr=False)
    content_type: str
    digest: Digest

    @property
    def descriptor(self) -> Descriptor:
        """What describes these bytes."""
        return Descriptor(self.content_type, self.digest, len(self.content))


class Documents:
    """Fetches documents, verified."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        # What a look-up of a tag had to fetch is asked for by digest right after it.
        self._recent: TTLCache[tuple[RepositoryName, Digest], FetchedManifest] = TTLCache(
            _RECENT_BYTES, 30.0, getsizeof=lambda document: len(document.content)
        )
        # Where a HEAD was refused and a GET answered. The opposite is not remembered: that both refuse one tag says
        # nothing about the next.
        self._head_is_refused: TTLCache[str, bool] = TTLCache(1024, _HEAD_REFUSED_S)

    def resolve(self, repository: RepositoryName, tag: str, *, may_be_missing: bool = False) -> Descriptor:
        """Return what *tag* names now. See RegistryClient.resolve."""
        what = f"{repository}:{tag}"

        def ask(endpoint: Endpoint) -> Descriptor:
            return self._resolve(endpoint, repository, tag, may_be_missing=may_be_missing, what=what)

        return self._calls.first_of(repository.registry, "resolve", ask)

    def fetch(self, repository: RepositoryName, reference: str | Digest) -> FetchedManifest:
        """Return the document that *reference* names. See RegistryClient.manifest."""
        if not isinstance(reference, Digest):
            what = f"{repository}:{reference}"
            return self._calls.first_of(
                repository.registry, "resolve", lambda endpoint: self._get(endpoint, repository, reference, what=what)
            )
        with self._lock:
            recent = self._recent.get((repository, reference))
        if recent is not None:
            return recent
        what = f"{repository}@{reference}"
        reference.hasher()  # what cannot be verified is not worth a request
        return self._calls.first_of(
            repository.registry,
            "pull",
            lambda endpoint: self._get_verified(endpoint, repository, reference, what=what),
        )

    def _resolve(
        self, endpoint: Endpoint, repository: RepositoryName, tag: str, *, may_be_missing: bool, what: str
    ) -> Descriptor:
        """Ask by HEAD, which costs no quota; by GET where HEAD is refused or says too little: GET has the last word.

        Where the tag *may_be_missing* GET is asked at once: after a HEAD that says 404 it would be asked anyway, and a
        tag that is there all the same is mostly looked into next. Not on Docker Hub, where each GET counts as a pull.
        """
        if may_be_missing and endpoint.host != HUB_HOST:
            try:
                return self._get_and_keep(endpoint, repository, tag, what=what, as_named=True).descriptor
            except (TooLarge, BadContent) as failure:
                log.info("%s; asking by HEAD what the tag names", failure)
        with self._lock:
            is_refused = endpoint.base in self._head_is_refused
        if not is_refused:
            answer = self._ask(endpoint, repository, tag, method="HEAD", what=what)
            answer.close()
            if answer.status == 200 and (described := _described(answer)) is not None:
                return described
            if answer.status == 404 and endpoint.host == HUB_HOST:
                raise NotFound(f"{what}: {endpoint.host} has no such tag")  # known to be right, and a GET costs quota
            expected(answer, 200, *_HEAD_SAYS_LITTLE, what=what)
            is_refused = answer.status != 200
        document = self._get_and_keep(endpoint, repository, tag, what=what)
        if is_refused:
            with self._lock:
                self._head_is_refused[endpoint.base] = True
        return document.descriptor

    def _get_and_keep(
        self, endpoint: Endpoint, repository: RepositoryName, tag: str, *, what: str, as_named: bool = False
    ) -> FetchedManifest:
        """Return the document that *tag* names, and keep it for the question by digest that follows."""
        document = self._get(endpoint, repository, tag, what=what, as_named=as_named)
        with self._lock:
            if len(document.content) <= _RECENT_BYTES:
                self._recent[repository, document.digest] = document
        return document

    def _get_verified(
        self, endpoint: Endpoint, repository: RepositoryName, digest: Digest, *, what: str
    ) -> FetchedManifest:
        """Return the document with *digest*; bytes that have another are asked for once more."""
        try:
            return self._get(endpoint, repository, digest, what=what)
        except DigestMismatch as error:
            log.warning("%s; asking once more", error)
            return self._get(endpoint, repository, digest, what=what)

    def _get(
        self,
        endpoint: Endpoint,
        repository: RepositoryName,
        reference: str | Digest,
        *,
        what: str,
        as_named: bool = False,
    ) -> FetchedManifest:
        """Return the document that *reference* names. *as_named*: DigestMismatch where a header has another digest."""
        answer = self._ask(endpoint, repository, reference, method="GET", what=what)
        if answer.content_type in media_types.SCHEMA1_TYPES:
            # Very old servers misread a list of types and convert: asked without the old types, they may not.
            modern = self._ask(endpoint, repository, reference, method="GET", what=what, accept=_MODERN)
            answer, spare = (modern, answer) if modern.status == 200 else (answer, modern)
            spare.close()
        with expected(answer, 200, what=what):
            content = answer.read(DOCUMENT_LIMIT, what=what)
        return _verified(answer, content, reference, what=what, as_named=as_named)

    def _ask(
        self,
        endpoint: Endpoint,
        repository: RepositoryName,
        reference: str | Digest,
        *,
        method: str,
        what: str,
        accept: str = ACCEPT,
    ) -> Answer:
        call = Call.pull(repository, f"manifests/{reference}", what=what)
        return self._calls.send(
            endpoint, replace(call, method=method, headers={"Accept": accept}, body_limit=DOCUMENT_LIMIT)
        )


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
