"""Docker Hub's own API, which lists the repositories of a namespace: Docker Hub's registry lists none.

It is another host than the registry, with limits of its own; asked without credentials, and only if the user wants it.
Source: Docker Hub API, "List repositories in a namespace". Since August 2026 it refuses anonymous requests past the
first thousand (harbor#23819), so a list may be incomplete, and says so. Used by images. Thread rule: shared by all
threads.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, NamedTuple

from cachetools import TTLCache

from regfs.errors import AccessDenied, Interrupted, Offline, ProtocolViolation, RegfsError, WouldBlock
from regfs.model.names import is_repository_component
from regfs.process.waiting.single_flight import Flights
from regfs.registry.http.error_answers import refusal
from regfs.registry.http.links import page_of
from regfs.registry.http.messages import Request
from regfs.registry.http.retrying import RetryingSender
from regfs.registry.listing import document_of, entries

log = logging.getLogger(__name__)

HUB_URL = "https://hub.docker.com"
_TTL_S = 300.0
_NAMESPACES_KEPT = 256
_PAGE_ENTRIES = 100
_PAGES = 1000
_PAGE_BYTES = 4 * 1024 * 1024


class HubRepositories(NamedTuple):
    """The paths of a namespace's repositories, `library/debian`, sorted; not *is_complete* where Hub held back some."""

    repositories: tuple[str, ...]
    is_complete: bool


class Hub:
    """Asks Docker Hub's API, and remembers its lists for five minutes."""

    def __init__(self, sender: RetryingSender, flights: Flights, *, offline: bool, url: str) -> None:
        self._sender = sender
        self._flights = flights
        self._lock = threading.Lock()
        self._listed: TTLCache[str, tuple[str, ...]] = TTLCache(_NAMESPACES_KEPT, _TTL_S)
        self._offline = offline
        self._url = url

    def repositories(self, namespace: str) -> tuple[str, ...]:
        """Return the paths of the repositories in *namespace*; none where the Hub does not tell. May block.

        A failure only means that what is known is listed: the name of a repository opens without a list.
        """
        with self._lock:
            listed = self._listed.get(namespace)
        return self._flights.run(("hub", namespace), lambda: self._list(namespace)) if listed is None else listed

    def has_listed(self, path: str) -> bool:
        """Tell whether *path* was in a list that is not older than five minutes; asks nothing."""
        with self._lock:
            return path in self._listed.get(path.partition("/")[0], ())

    def forget_failures(self) -> None:
        """Forget the lists, of which a failure makes an empty one."""
        with self._lock:
            self._listed.clear()

    def _list(self, namespace: str) -> tuple[str, ...]:
        try:
            names = self.namespace(namespace).repositories
        except (WouldBlock, Interrupted):
            raise
        except RegfsError as failure:
            log.info("Docker Hub does not list %s: %s", namespace, failure)
            names = ()
        with self._lock:
            self._listed[namespace] = names
        return names

    def namespace(self, namespace: str) -> HubRepositories:
        """Return the repositories in *namespace*, asked for now. Raises what RegistryClient says."""
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
        request = Request(
            "GET", f"{self._url}{path}", headers={"Accept": "application/json"}, body_limit=_PAGE_BYTES, why="hub"
        )
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
