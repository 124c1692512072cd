"""What a registry's catalog says of the names below one path, by one cheap request, and how far it may be believed.

The catalog is no part of the specification, and registries differ: some refuse it to all but administrators, others
answer all other users with an empty list, or with the public half; some ignore where to begin; and a pull-through
cache lists what it has cached and answers for much more. Docker's API says itself that a client can learn from it that
a repository is there, never that it is not. So it decides about namespaces alone, of which no registry says anything
else; and a catalog that is empty, or that lacks a repository which is there, makes no name missing.
A page that reaches beyond a path tells all that is below it, which answers the next questions there for some seconds.
Used by existence.py. Thread rule: any thread.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from regfs.errors import AccessDenied, BadContent, NotFound, RepositoryUnknown, TooLarge, Unsupported
from regfs.images.answers.remembered import UNREACHABLE, Refreshes, Remembered
from regfs.model.names import RepositoryName
from regfs.registry.client import RegistryClient
from regfs.store.references.references import References, left_s

_PATHS_KEPT = 1024
_NAMES_KEPT = 100
# A cache whose upstream is away for a moment answers like a registry that is none.
_IS_CACHE_TTL_S = 3600.0
# A repository that was visited may be one that the catalog lacks: it is compared with the last one visited.
_COMPARED_TTL_S = 60.0
# For how long the catalog is believed about names of which it was not asked: a namespace may be pushed at any time,
# but seldom below a repository.
_BESIDE_TTL_S = 2.0
_IN_REPOSITORY_TTL_S = 10.0
# Repositories of Docker Hub that every pull-through cache of it answers for; the first may be one that it has cached.
_OF_THE_HUB = ("library/hello-world", "library/hylang")
SAYS_NOTHING = (AccessDenied, NotFound, Unsupported, BadContent, TooLarge, *UNREACHABLE)
"""What a question to a catalog fails with where that says nothing about repositories."""


class _Below(NamedTuple):
    """Repositories below a path, and whether they are all, as the catalog had them at *asked* (monotonic seconds)."""

    names: frozenset[str]
    is_all: bool
    asked: float

    def has(self, path: str) -> bool | None:
        """Tell whether something is below *path*, which is that path or a name there; None where it is not known."""
        prefix = f"{path}/"
        return any(name.startswith(prefix) for name in self.names) or (False if self.is_all else None)


class CatalogBelow:
    """Asks catalogs what is below a path."""

    def __init__(self, registry: RegistryClient, references: References, *, refreshes: Refreshes, ttl_s: float) -> None:
        """*references* knows what was visited and listed. No answer is taken for fresh after *ttl_s* seconds."""
        self._registry = registry
        self._references = references
        self._refreshes = refreshes
        self._ttl_s = ttl_s
        self._below: Remembered[tuple[str, str], _Below] = Remembered(
            refreshes, ttl_s=min(_COMPARED_TTL_S, ttl_s), most=_PATHS_KEPT
        )
        # Registries: whose catalog has names; that are, or lack, what the methods below say.
        self._has_names: Remembered[str, bool] = Remembered(refreshes, ttl_s=_COMPARED_TTL_S)
        self._compared: Remembered[str, bool] = Remembered(refreshes, ttl_s=_COMPARED_TTL_S)
        self._is_cache: Remembered[str, bool] = Remembered(refreshes, ttl_s=_COMPARED_TTL_S)

    def has(self, registry: str, path: str) -> bool:
        """Tell whether *registry* lists a repository below *path*. Blocks on the network.

        Raises one of SAYS_NOTHING where its catalog cannot tell, Unsupported where it is known to lack repositories.
        """
        found = self._known(registry, path, _BESIDE_TTL_S)
        if found is None:
            found = bool(self._ask(registry, path).names)
        if not found and self._is_of_a_cache(registry):
            raise Unsupported(f"{registry} lists what it has cached")
        if not found and self._lacks_what_is_there(registry):
            raise Unsupported(f"{registry} lists some of its repositories, or none")
        return found

    def has_in_repository(self, registry: str, path: str) -> bool:
        """Tell it of a *path* in a repository, by one question for all names there. Blocks on the network.

        Raises one of SAYS_NOTHING where the catalog cannot tell. False says no more than that it lists nothing.
        """
        repository = path.rpartition("/")[0]
        found = self._known(registry, path, _IN_REPOSITORY_TTL_S)
        if found is None and self._was_listed(registry, repository, _IN_REPOSITORY_TTL_S):
            return self._references.repositories.has_known_below(registry, path)
        if found is None and not self._has_many(registry, repository):
            found = self._ask(registry, repository).has(path)
        return bool(self._ask(registry, path).names) if found is None else found

    def _known(self, registry: str, path: str, ttl_s: float) -> bool | None:
        """Tell whether something is below *path*, by what the catalog said within *ttl_s* of it or of what it is in."""
        asked_after, above = time.monotonic() - ttl_s, path
        while above:
            below = self._below.get((registry, above))
            found = None if below is None or below.asked < asked_after else below.has(path)
            if found is not None:
                return found
            above = above.rpartition("/")[0]
        return None

    def _has_many(self, registry: str, path: str) -> bool:
        """Tell whether a page does not reach beyond what is below *path*: then each name there is a question."""
        below = self._below.get((registry, path))
        return below is not None and not below.is_all

    def _was_listed(self, registry: str, repository: str, ttl_s: float) -> bool:
        """Tell whether all repositories were listed within *ttl_s*, with *repository* among them."""
        known = self._references.repositories
        is_fresh = left_s(known.catalog_checked(registry), min(ttl_s, self._ttl_s)) > 0
        return is_fresh and known.is_in_catalog(registry, repository)

    def _ask(self, registry: str, path: str) -> _Below:
        """Ask for the repositories below *path*: those of one page, or all where that page does not begin there."""
        asked_at, prefix, asked = self._refreshes.count, f"{path}/", time.monotonic()
        page = self._registry.listing.repositories_after(registry, prefix)
        names, is_all = page.names, page.is_all or any(_is_beyond(name, prefix) for name in page.names)
        if page.names and min(page.names) <= prefix and not page.is_all:  # the registry ignored where to begin
            names, is_all = self._registry.listing.repositories(registry), True
        below = _Below(frozenset(name for name in names if name.startswith(prefix)), is_all, asked)
        if names:
            self._has_names.keep(registry, True)
        kept = below if len(below.names) <= _NAMES_KEPT else _Below(frozenset(), is_all=False, asked=asked)
        self._below.keep((registry, path), kept, asked_at=asked_at)
        return below

    def _is_of_a_cache(self, registry: str) -> bool:
        """Tell whether the catalog is that of a pull-through cache: what it does not have may be there all the same."""
        known = self._is_cache.get(registry)
        if known is None:
            known = self._references.repositories.is_cache(registry, ttl_s=_IS_CACHE_TTL_S)
        if known is None:
            known = self._answers_for_the_hub(registry)
        return self._is_cache.keep(registry, known).value

    def _answers_for_the_hub(self, registry: str) -> bool:
        """Ask whether *registry* answers for what it does not list, and let all mounts know where it says so or not."""
        is_cache = False
        try:
            for path in _OF_THE_HUB:
                self._registry.listing.first_tags(RepositoryName(registry, path))
                is_cache = is_cache or not self._is_listed(registry, path)
                if is_cache:
                    break
        except RepositoryUnknown:
            pass
        except SAYS_NOTHING:
            return False
        self._references.repositories.keep_is_cache(registry, is_cache=is_cache)
        return is_cache

    def _lacks_what_is_there(self, registry: str) -> bool:
        """Tell whether the catalog is empty, or lacks the repository that was visited last, which is there still."""
        known = self._compared.get(registry)
        return self._compared.keep(registry, self._compare(registry)).value if known is None else known

    def _compare(self, registry: str) -> bool:
        visited = self._references.repositories.last_visited(registry)
        if visited is not None and self._is_listed(registry, visited):
            return False
        if visited is not None and self._is_there(registry, visited):
            return True
        return registry not in self._has_names and not self._registry.listing.repositories_after(registry, "").names

    def _is_there(self, registry: str, path: str) -> bool:
        try:
            self._registry.listing.first_tags(RepositoryName(registry, path))
        except SAYS_NOTHING:
            return False
        return True

    def _is_listed(self, registry: str, path: str) -> bool:
        if self._was_listed(registry, path, self._ttl_s):
            return True
        before = f"{path[:-1]}{chr(ord(path[-1]) - 1)}~"  # no name has a tilde, or sorts between this and *path*
        page = self._registry.listing.repositories_after(registry, before)
        if path in page.names:
            return True
        passed_over = bool(page.names) and min(page.names) < before
        return passed_over and path in self._registry.listing.repositories(registry)


def _is_beyond(name: str, prefix: str) -> bool:
    """Tell whether *name* comes after all that begin with *prefix*, whether `/` sorts first, as components do, or as a
    byte: then `a-b` is before `a/b`.
    """
    return name > f"{prefix}~"  # no name has a tilde
