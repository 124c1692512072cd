"""Asks a registry's catalog for the names below one path, by one cheap request, and judges whether it can be trusted.

The catalog is not in the specification, and registries differ. Some refuse it to all but administrators; others give
other users an empty list, or only the public repositories; some ignore where to begin; and a pull-through cache lists
what it has cached, and serves much more. By Docker's documentation, the catalog can prove that a repository exists, and
never that it does not. So it decides only about namespaces, for which there is no other question. A catalog that is
empty, or lacks a repository that exists, makes no name missing.

A page that reaches beyond a path has all that is below the path, and answers the next questions there for some seconds.
Used by existence.py. Thread rule: any thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.errors import AccessDenied, BadContent, NotFound, RepositoryUnknown, TooLarge, Unsupported
from regfs.images.answers.remembered import UNREACHABLE, Refreshes, Remembered
from regfs.model.names import RepositoryName
from regfs.process.clocks import since_boot_s
from regfs.registry.client import RegistryClient
from regfs.store.references.references import References, left_s

_PATHS_KEPT = 1024
_NAMES_KEPT = 100
# A cache whose upstream is down for a moment answers like a registry that is not a cache.
_IS_CACHE_TTL_S = 3600.0
# To see whether the catalog is complete, it is compared with the repository that was visited last.
_COMPARED_TTL_S = 60.0
# How long the catalog answers for other names than the one it was asked for. A namespace may be pushed at any time, but
# rarely below a repository.
_BESIDE_TTL_S = 2.0
_IN_REPOSITORY_TTL_S = 10.0
# Repositories of Docker Hub that every pull-through cache of it serves. Two, because it may have cached the first.
_OF_THE_HUB = ("library/hello-world", "library/hylang")
SAYS_NOTHING = (AccessDenied, NotFound, Unsupported, BadContent, TooLarge, *UNREACHABLE)
"""The errors of a request for a catalog that say nothing about repositories."""


class _Below(NamedTuple):
    """Repositories below a path in the catalog at *asked* (seconds since the boot). *is_all*: the list is complete."""

    names: frozenset[str]
    is_all: bool
    asked: float

    def has(self, path: str) -> bool | None:
        """Tell whether something is below *path*, which is that path or a name below it; None if unknown."""
        prefix = f"{path}/"
        return any(name.startswith(prefix) for name in self.names) or (False if self.is_all else None)


class CatalogBelow:
    """Asks catalogs what is below a path."""

    def __init__(self, registry: RegistryClient, references: References, *, refreshes: Refreshes, ttl_s: float) -> None:
        """*references* knows what was visited and listed. No answer is used for longer than *ttl_s* seconds."""
        self._registry = registry
        self._references = references
        self._refreshes = refreshes
        self._ttl_s = ttl_s
        self._below: Remembered[tuple[str, str], _Below] = Remembered(
            refreshes, ttl_s=min(_COMPARED_TTL_S, ttl_s), most=_PATHS_KEPT
        )
        # By registry: whether the catalog has names, lacks a visited repository, or is a pull-through cache's.
        self._has_names: Remembered[str, bool] = Remembered(refreshes, ttl_s=_COMPARED_TTL_S)
        self._compared: Remembered[str, bool] = Remembered(refreshes, ttl_s=_COMPARED_TTL_S)
        self._is_cache: Remembered[str, bool] = Remembered(refreshes, ttl_s=_COMPARED_TTL_S)

    def has(self, registry: str, path: str) -> bool:
        """Tell whether *registry* lists a repository below *path*. Blocks on the network.

        Raises one of SAYS_NOTHING if its catalog cannot tell, Unsupported if the catalog is known to be incomplete.
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
        """Do what has() does for a *path* in a repository, with one request for all names in it. Blocks on the network.

        Raises one of SAYS_NOTHING if the catalog cannot tell. False means only that the catalog lists nothing there.
        """
        repository = path.rpartition("/")[0]
        found = self._known(registry, path, _IN_REPOSITORY_TTL_S)
        if found is None and self._was_listed(registry, repository, _IN_REPOSITORY_TTL_S):
            return self._references.repositories.has_known_below(registry, path)
        if found is None and not self._has_many(registry, repository):
            found = self._ask(registry, repository).has(path)
        return bool(self._ask(registry, path).names) if found is None else found

    def _known(self, registry: str, path: str, ttl_s: float) -> bool | None:
        """Tell whether something is below *path*, by the answers of the last *ttl_s* seconds; None if unknown."""
        asked_after, above = since_boot_s() - ttl_s, path
        while above:
            below = self._below.get((registry, above))
            found = None if below is None or below.asked < asked_after else below.has(path)
            if found is not None:
                return found
            above = above.rpartition("/")[0]
        return None

    def _has_many(self, registry: str, path: str) -> bool:
        """Tell whether one page does not hold all that is below *path*, so that each name there needs a request."""
        below = self._below.get((registry, path))
        return below is not None and not below.is_all

    def _was_listed(self, registry: str, repository: str, ttl_s: float) -> bool:
        """Tell whether the whole catalog was listed within *ttl_s*, and has *repository*."""
        known = self._references.repositories
        is_fresh = left_s(known.catalog_checked(registry), min(ttl_s, self._ttl_s)) > 0
        return is_fresh and known.is_in_catalog(registry, repository)

    def _ask(self, registry: str, path: str) -> _Below:
        """Ask for the repositories below *path*: one page, or all if the registry ignores where to begin."""
        asked_at, prefix, asked = self._refreshes.count, f"{path}/", since_boot_s()
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
        """Tell whether the catalog is that of a pull-through cache, which serves more repositories than it lists."""
        known = self._is_cache.get(registry)
        if known is None:
            known = self._references.repositories.is_cache(registry, ttl_s=_IS_CACHE_TTL_S)
        if known is None:
            known = self._answers_for_the_hub(registry)
        return self._is_cache.keep(registry, known).value

    def _answers_for_the_hub(self, registry: str) -> bool:
        """Ask whether *registry* serves repositories that it does not list, and store the answer for all mounts."""
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
        """Tell whether the catalog is empty, or lacks the repository that was visited last and still exists."""
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
        before = f"{path[:-1]}{chr(ord(path[-1]) - 1)}~"  # names have no tilde, and none sorts between this and *path*
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
