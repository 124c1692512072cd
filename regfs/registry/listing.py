"""Lists: the tags of a repository, the repositories of a registry. All pages, or an error: never half a list.

Used by images. Sources: distribution-spec, "Listing Tags"; Docker's registry API, "Listing Repositories". No page
size is asked for: some registries refuse one that is too large, others ignore it. Only a first page has one, that no
registry refuses. Thread rule: shared by all threads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

from regfs.errors import NotFound, ProtocolViolation, TooLarge
from regfs.model.names import RepositoryName, is_repository_component, is_tag
from regfs.registry.endpoint_calls import Call, EndpointCalls, expected
from regfs.registry.hosts.endpoints import Endpoint
from regfs.registry.http.links import next_page
from regfs.registry.http.messages import Answer

log = logging.getLogger(__name__)

_PAGE_BYTES = 16 * 1024 * 1024
_PAGES = 10_000
_ENTRIES = 1_000_000
# Most repositories have fewer tags, and most registries fewer repositories beside a name.
_FIRST_PAGE = 100
# Some registries send pages that overlap, and empty ones; many in a row are a circle under new names.
_BARREN_PAGES = 8
_CATALOG_SCOPE = ("registry:catalog:*",)

Ask = Callable[[str], Answer]


class FirstPage(NamedTuple):
    """The names on the first page of a list, and whether these are all."""

    names: list[str]
    is_all: bool


class Listing:
    """Fetches lists, page after page."""

    def __init__(self, calls: EndpointCalls) -> None:
        self._calls = calls

    def tags(self, repository: RepositoryName) -> list[str]:
        """Return all valid tags of *repository*, sorted: those of signatures and the like too."""

        what = f"the tags of {repository}"
        call = Call.pull(repository, "tags/list", what=what)

        def ask(endpoint: Endpoint) -> list[str]:
            return _valid(self._all(endpoint, call, key="tags"), is_tag, what=what)

        return self._calls.first_of(repository.registry, "resolve", ask)

    def first_tags(self, repository: RepositoryName) -> FirstPage:
        """Return the first tags of *repository* and whether they are all: the cheapest proof that it exists.

        RepositoryUnknown means that the registry says it does not exist; any other error says nothing about it.
        """
        what = f"the tags of {repository}"
        call = Call.pull(repository, f"tags/list?n={_FIRST_PAGE}", what=what)
        found, is_last = self._calls.first_of(
            repository.registry, "resolve", lambda endpoint: self._first(endpoint, call, key="tags")
        )
        return FirstPage(_valid(found, is_tag, what=what), is_last)

    def check_access(self, registry: str) -> bool:
        """Ask the root of the API of *registry* itself, as `docker login` does, with the credentials that there are.

        Return whether it wanted them: a registry without access control asks for none. Blocks on the network; raises
        AccessDenied.
        Source: distribution-spec, "Determining Support".
        """
        endpoint = self._itself(registry, "log in to")
        answer = expected(self._calls.send(endpoint, Call("", registry, (), None)), 200, what=registry)
        answer.close()
        return "Authorization" in answer.request.headers

    def repositories(self, registry: str) -> list[str]:
        """Return the paths of all repositories that *registry* lists, sorted.

        Raises NotFound, AccessDenied, Unsupported or ProtocolViolation if it cannot be listed, which says nothing about
        its repositories.
        """
        what = f"the repositories of {registry}"
        found = self._all(self._itself(registry, what), _catalog_call("_catalog", what), key="repositories")
        return _valid(found, _is_repository_path, what=what)

    def repositories_after(self, registry: str, name: str) -> FirstPage:
        """Return the first repositories of *registry* after *name*, one or more, and whether they are all.

        Some registries ignore *name*; then the first repositories are not after it. Raises what repositories() raises.
        """
        what = f"the repositories of {registry}"
        call = _catalog_call(f"_catalog?n={_FIRST_PAGE}&last={quote(name, safe='')}", what)
        found, is_last = self._first(self._itself(registry, what), call, key="repositories")
        return FirstPage(_valid(found, _is_repository_path, what=what), is_last)

    def _itself(self, registry: str, what: str) -> Endpoint:
        """Return the registry's own host: a mirror lists what it mirrors, of all its registries. Raises NotFound."""
        upstream = [one for one in self._calls.endpoints(registry, "resolve") if one.upstream]
        if not upstream:
            raise NotFound(f"{what}: none of its hosts is the registry itself")
        return upstream[-1]

    def _first(self, endpoint: Endpoint, call: Call, *, key: str) -> tuple[list[object], bool]:
        """Return what the first page has, and whether there is no other."""
        call = replace(call, headers={"Accept": "application/json"}, body_limit=_PAGE_BYTES)
        answer = self._calls.send(endpoint, call)
        with expected(answer, 200, what=call.what):
            found = entries(document_of(answer, what=call.what), key, what=call.what)
            # As many as were asked for and no link: that may be a page, of a registry that gives no links.
            is_last = next_page(answer.url, answer.headers.all("Link")) is None and len(found) != _FIRST_PAGE
            return found, is_last

    def _all(self, endpoint: Endpoint, call: Call, *, key: str) -> list[object]:
        call = replace(call, headers={"Accept": "application/json"}, body_limit=_PAGE_BYTES)

        def ask(path: str) -> Answer:
            return self._calls.send(endpoint, replace(call, path=path))

        def parse(document: Any) -> list[object]:
            return entries(document, key, what=call.what)

        try:
            return pages(ask, call.path, parse, what=call.what)
        except PageGone as error:
            # The tag that a page began after was deleted meanwhile (zot); from the start it works.
            log.info("%s; starting again", error)
            return pages(ask, call.path, parse, what=call.what)


def _catalog_call(path: str, what: str) -> Call:
    return Call(path, what, _CATALOG_SCOPE, None)


class PageGone(ProtocolViolation):
    """A page after the first is not there: the list changed while it was read."""


def pages(ask: Ask, path: str, parse: Callable[[Any], list[object]], *, what: str) -> list[object]:
    """Return what *parse* finds on all pages, from *path* on, without repetitions that make no progress.

    Raises PageGone, ProtocolViolation (a cycle), TooLarge, and what *ask* and *parse* raise.
    """
    found: list[object] = []
    seen_paths: set[str] = set()
    seen: set[str] = set()
    barren = 0
    next_path: str | None = path
    while next_path is not None:
        if next_path in seen_paths or len(seen_paths) >= _PAGES:
            raise ProtocolViolation(f"{what}: its pages go round in circles")
        seen_paths.add(next_path)
        answer = ask(next_path)
        if len(seen_paths) > 1 and answer.status in (404, 410):
            answer.discard()
            raise PageGone(f"{what}: page {len(seen_paths)} is gone")
        with expected(answer, 200, what=what):
            entries_here = parse(document_of(answer, what=what))
            next_path = next_page(answer.url, answer.headers.all("Link"))
        new = [entry for entry in entries_here if str(entry) not in seen]
        seen.update(map(str, new))
        found += new
        if len(found) > _ENTRIES:
            raise TooLarge(f"{what}: more than {_ENTRIES} entries")
        barren = 0 if new else barren + 1
        if barren > _BARREN_PAGES:
            raise ProtocolViolation(f"{what}: its pages repeat themselves")
    return found


def document_of(answer: Answer, *, what: str) -> Any:
    """Return the JSON document in *answer*. Raises ProtocolViolation (a web page, for instance), TooLarge."""
    try:
        return json.loads(answer.read(_PAGE_BYTES, what=what).decode("utf-8"))
    except (ValueError, RecursionError):
        origin, kind = answer.request.origin, answer.content_type
        raise ProtocolViolation(f"{what}: {origin} sends no JSON but {kind or 'something else'!r}") from None


def entries(document: Any, key: str, *, what: str) -> list[object]:
    """Return the list under *key*, which may be null or missing where there is nothing. Raises ProtocolViolation."""
    found = document.get(key) if isinstance(document, dict) else ""
    if found is None:
        return []
    if not isinstance(found, list):
        raise ProtocolViolation(f"{what}: an answer without a list of {key}")
    return found


def _valid(found: list[object], is_valid: Callable[[str], bool], *, what: str) -> list[str]:
    """Return the valid names in *found*, sorted and once each; the others are logged in one line."""
    names = [entry for entry in found if isinstance(entry, str) and is_valid(entry)]
    if len(names) < len(found):
        log.warning("%s: %d entries are not valid names and left out", what, len(found) - len(names))
    return sorted(set(names))


def _is_repository_path(name: str) -> bool:
    return bool(name) and all(is_repository_component(component) for component in name.split("/"))
