"""Docker Hub's own API, which lists the repositories of a namespace: Docker Hub's registry lists none.

It is another host than the registry, with limits of its own; asked without credentials, and only if the user wants it.
Source: Docker Hub API, "List repositories in a namespace". Since August 2026 it refuses anonymous requests past the
first thousand (harbor#23819), so a list may be incomplete, and says so. Used by images. Thread rule: shared by all
threads.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from regfs.errors import AccessDenied, Offline, ProtocolViolation
from regfs.model.names import is_repository_component
from regfs.registry.http.error_answers import refusal
from regfs.registry.http.links import page_of
from regfs.registry.http.messages import Request
from regfs.registry.http.retrying import RetryingSender
from regfs.registry.listing import document_of, entries

log = logging.getLogger(__name__)

HUB_URL = "https://hub.docker.com"
_PAGE_ENTRIES = 100
_PAGES = 1000
_PAGE_BYTES = 4 * 1024 * 1024


class HubRepositories(NamedTuple):
    """The paths of a namespace's repositories, `library/debian`, sorted; not *is_complete* where Hub held back some."""

    repositories: tuple[str, ...]
    is_complete: bool


class Hub:
    """Asks Docker Hub's API."""

    def __init__(self, sender: RetryingSender, *, offline: bool, url: str) -> None:
        self._sender = sender
        self._offline = offline
        self._url = url

    def namespace(self, namespace: str) -> HubRepositories:
        """Return the repositories in *namespace*. Raises what RegistryClient says."""
        what = f"the repositories of docker.io/{namespace}"
        if self._offline:
            raise Offline(f"{what}: Docker Hub would have to be asked, and regfs runs with --offline")
        if not is_repository_component(namespace):
            return HubRepositories((), is_complete=True)
        found: set[str] = set()
        seen: set[str] = set()
        path: str | None = f"/v2/namespaces/{namespace}/repositories?page_size={_PAGE_ENTRIES}"
        while path is not None:
            if path in seen or len(seen) >= _PAGES:
                raise ProtocolViolation(f"{what}: its pages go round in circles")
            seen.add(path)
            try:
                names, path = self._page(path, what=what)
            except AccessDenied as error:
                if len(seen) == 1:
                    raise
                log.info("%s; the list ends after %d", error, len(found))
                return HubRepositories(_paths(namespace, found), is_complete=False)
            found |= names
        return HubRepositories(_paths(namespace, found), is_complete=True)

    def _page(self, path: str, *, what: str) -> tuple[set[str], str | None]:
        """Return the names on the page at *path*, and the path of the next."""
        request = Request("GET", f"{self._url}{path}", headers={"Accept": "application/json"}, body_limit=_PAGE_BYTES)
        answer = self._sender.send(request, what=what)
        if answer.status != 200:
            raise refusal(answer, what=what)
        document: Any = document_of(answer, what=what)
        results = entries(document, "results", what=what)
        names = [result.get("name") for result in results if isinstance(result, dict)]
        following = document.get("next")
        after = page_of(answer.url, following) if isinstance(following, str) and following else None
        return {name for name in names if isinstance(name, str) and is_repository_component(name)}, after


def _paths(namespace: str, names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(f"{namespace}/{name}" for name in names))
