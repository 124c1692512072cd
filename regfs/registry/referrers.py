"""Referrers: what refers to a manifest (signatures, attestations, SBOMs), by the API or the fallback tag.

Registries without the API answer nearly anything: 400 (Quay), 401 without a challenge (Harbor), 405, 406
(go-containerregistry#1962), a redirect to a web page or a page itself with 200 (GHCR). All of that means "ask the tag";
5xx does not: it says nothing about the API. Source: distribution-spec, "Listing Referrers", "Referrers Tag Schema".
Thread rule: shared by all threads.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from functools import partial

from cachetools import TTLCache

from regfs.errors import BadContent, NotFound, ProtocolViolation, RegfsError, TooLarge
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.manifest import MAX_ENTRIES, Descriptor, Index, parse_manifest
from regfs.model.names import RepositoryName
from regfs.model.strict_json import DOCUMENT_LIMIT
from regfs.registry.endpoint_calls import Call, EndpointCalls, expected
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.error_answers import error_text
from regfs.registry.http.links import next_page
from regfs.registry.http.messages import Answer
from regfs.registry.http.redirects import REDIRECTS
from regfs.registry.manifests import Manifests

log = logging.getLogger(__name__)

_PAGES = 1000
_NO_API = frozenset({400, 401, 403, 404, 405, 406, 501})
_KNOWN_FOR_S = 3600.0


class NoReferrersApi(RegfsError):
    """Internal to this package: the endpoint does not know the referrers API."""


class Referrers:
    """Fetches lists of referrers."""

    def __init__(self, calls: EndpointCalls, manifests: Manifests) -> None:
        self._calls = calls
        self._manifests = manifests
        self._lock = threading.Lock()
        self._without_api: TTLCache[str, bool] = TTLCache(1024, _KNOWN_FOR_S)

    def of(self, repository: RepositoryName, digest: Digest) -> list[Descriptor]:
        """Return the manifests whose subject is *digest*, as the registry lists them: not verified, like every list."""
        return self._calls.first_of(repository.registry, "referrers", partial(self._of, repository, digest))

    def _of(self, repository: RepositoryName, digest: Digest, endpoint: Endpoint) -> list[Descriptor]:
        with self._lock:
            without_api = endpoint.base in self._without_api
        if not without_api:
            try:
                return self._by_api(endpoint, repository, digest)
            except NoReferrersApi:
                with self._lock:
                    self._without_api[endpoint.base] = True
        return self._by_tag(repository, digest)

    def _by_api(self, endpoint: Endpoint, repository: RepositoryName, digest: Digest) -> list[Descriptor]:
        what = f"the referrers of {repository}@{digest}"
        found: dict[Digest, Descriptor] = {}
        call = replace(
            Call.pull(repository, f"referrers/{digest}", what=what),
            headers={"Accept": media_types.OCI_INDEX},
            body_limit=DOCUMENT_LIMIT,
            stays=True,
        )
        path: str | None = call.path
        seen: set[str] = set()
        while path is not None:
            if path in seen or len(seen) >= _PAGES:
                raise ProtocolViolation(f"{what}: the pages go round in circles")
            seen.add(path)
            answer = self._calls.send(endpoint, replace(call, path=path))
            with answer:
                self._check(answer, endpoint, is_first=len(seen) == 1, what=what)
                for descriptor in _entries(answer, what=what):
                    found.setdefault(descriptor.digest, descriptor)
                if len(found) > MAX_ENTRIES:
                    raise TooLarge(f"{what}: they are more than {MAX_ENTRIES}")
                path = next_page(answer.url, answer.headers.all("Link"))
        return list(found.values())

    def _check(self, answer: Answer, endpoint: Endpoint, *, is_first: bool, what: str) -> None:
        """Raise NoReferrersApi where *answer* is that of a registry without the API, or the error that it is."""
        if is_first and answer.status == 404 and "NAME_UNKNOWN" in error_text(answer):
            raise NotFound(f"{what}: {endpoint.host} has no such repository")
        is_page = answer.status == 200 and not _is_index(answer, what=what)
        if is_first and (answer.status in _NO_API or answer.status in REDIRECTS or is_page):
            log.info("%s: %s has no referrers API (%d)", what, endpoint.host, answer.status)
            raise NoReferrersApi(what)
        expected(answer, 200, what=what)

    def _by_tag(self, repository: RepositoryName, digest: Digest) -> list[Descriptor]:
        """Return what the fallback tag lists; without the tag there are no referrers."""
        try:
            document = self._manifests.fetch(repository, referrers_tag(digest))
        except NotFound:
            return []
        index = parse_manifest(document.content, content_type=document.content_type)
        return list(index.manifests) if isinstance(index, Index) else []


def referrers_tag(digest: Digest) -> str:
    """Return the tag whose index lists what refers to *digest*, where a registry has no API for that."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def _is_index(answer: Answer, *, what: str) -> bool:
    """Tell whether the body is an index: a registry with the API may send a wrong Content-Type."""
    if answer.content_type == media_types.OCI_INDEX:
        return True
    try:
        _entries(answer, what=what)
    except BadContent:
        return False
    return True


def _entries(answer: Answer, *, what: str) -> tuple[Descriptor, ...]:
    index = parse_manifest(answer.read(DOCUMENT_LIMIT, what=what), content_type=answer.content_type)
    if not isinstance(index, Index):
        raise ProtocolViolation(f"{what}: a document that is not an index")
    return index.manifests
