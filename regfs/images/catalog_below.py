"""What a registry's catalog says of the names below one path, by one cheap request, and how far it may be believed.

The catalog is no part of the specification, and registries differ: some refuse it to all but administrators, others
answer everybody else with an empty list, or with the public half; some pass over where to begin; and a pull-through
cache lists what it has cached and answers for much more. So a catalog that is empty, or that lacks a repository which
is there, makes no name missing.
Used by existence.py. Thread rule: any thread; the lock guards the memory, nothing is asked under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cachetools import TTLCache

from regfs.errors import AccessDenied, BadContent, NotFound, TooLarge, Unsupported
from regfs.images.answers import UNREACHABLE, Registry
from regfs.model.names import RepositoryName

_REGISTRIES_KEPT = 1024
_IS_CACHE_TTL_S = 3600.0
# A repository that was visited may be one that the catalog lacks: it is compared with the last one visited.
_COMPARED_TTL_S = 60.0
# A repository of Docker Hub that every pull-through cache of it answers for.
_OF_THE_HUB = "library/hello-world"
SAYS_NOTHING = (AccessDenied, NotFound, Unsupported, BadContent, TooLarge, *UNREACHABLE)
"""What a question to a catalog fails with where that says nothing about repositories."""


class CatalogBelow:
    """Asks catalogs what is below a path. *visited* returns the repository of a registry that was visited last."""

    def __init__(self, registry: Registry, visited: Callable[[str], str | None]) -> None:
        self._registry = registry
        self._visited = visited
        self._lock = threading.Lock()
        self._compared: TTLCache[str, bool] = TTLCache(_REGISTRIES_KEPT, _COMPARED_TTL_S)
        self._is_cache: TTLCache[str, bool] = TTLCache(_REGISTRIES_KEPT, _IS_CACHE_TTL_S)

    def has(self, registry: str, path: str) -> bool:
        """Tell whether *registry* lists a repository below *path*. Blocks on the network.

        Raises one of SAYS_NOTHING where its catalog cannot tell, Unsupported where it is known to lack repositories.
        """
        found = self._found_below(registry, path)
        if not found and self._is_of_a_cache(registry):
            raise Unsupported(f"{registry} lists what it has cached")
        if not found and self._lacks_what_is_there(registry):
            raise Unsupported(f"{registry} lists some of its repositories, or none")
        return found

    def refresh(self) -> None:
        """Forget what the catalogs lack: other repositories are there now, or other credentials."""
        with self._lock:
            self._compared.clear()

    def _found_below(self, registry: str, path: str) -> bool:
        prefix = f"{path}/"
        page = self._registry.repositories_after(registry, prefix)
        if any(name.startswith(prefix) for name in page.names):
            return True
        if page.names and min(page.names) > prefix:
            return False
        if page.is_all and len(page.names) != 1:
            return False
        # Where to begin was passed over: all names are needed.
        return any(name.startswith(prefix) for name in self._registry.repositories(registry))

    def _is_of_a_cache(self, registry: str) -> bool:
        """Tell whether the catalog is that of a pull-through cache: what it does not have may be there all the same."""
        with self._lock:
            known = self._is_cache.get(registry)
        if known is None:
            known = self._answers_for_the_hub(registry)
            with self._lock:
                self._is_cache[registry] = known
        return known

    def _answers_for_the_hub(self, registry: str) -> bool:
        return self._is_there(registry, _OF_THE_HUB) and not self._is_listed(registry, _OF_THE_HUB)

    def _lacks_what_is_there(self, registry: str) -> bool:
        """Tell whether the catalog is empty, or lacks the repository that was visited last, which is there still."""
        with self._lock:
            known = self._compared.get(registry)
        if known is None:
            known = self._compare(registry)
            with self._lock:
                self._compared[registry] = known
        return known

    def _compare(self, registry: str) -> bool:
        visited = self._visited(registry)
        if visited is not None and self._is_listed(registry, visited):
            return False
        if visited is not None and self._is_there(registry, visited):
            return True
        return not self._registry.repositories_after(registry, "").names

    def _is_there(self, registry: str, path: str) -> bool:
        try:
            self._registry.first_tags(RepositoryName(registry, path))
        except SAYS_NOTHING:
            return False
        return True

    def _is_listed(self, registry: str, path: str) -> bool:
        before = f"{path[:-1]}{chr(ord(path[-1]) - 1)}~"  # no name has a tilde, or sorts between this and *path*
        page = self._registry.repositories_after(registry, before)
        if path in page.names:
            return True
        passed_over = bool(page.names) and min(page.names) < before
        return passed_over and path in self._registry.repositories(registry)
