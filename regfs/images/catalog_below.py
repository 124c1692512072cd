"""What a registry's catalog says of the names below one path, by one cheap request, and how far it may be believed.

The catalog is no part of the specification, and registries differ: some list it for administrators only, some pass
over where to begin, and a pull-through cache lists what it has cached and answers for much more.
Used by existence.py. Thread rule: any thread; the lock guards the memory, nothing is asked under it.
"""

from __future__ import annotations

import threading

from cachetools import TTLCache

from regfs.errors import AccessDenied, BadContent, NotFound, TooLarge, Unsupported
from regfs.images.answers import UNREACHABLE, Registry
from regfs.model.names import RepositoryName

_REGISTRIES_KEPT = 1024
_IS_CACHE_TTL_S = 3600.0
# A repository of Docker Hub that every pull-through cache of it answers for.
_OF_THE_HUB = "library/hello-world"
SAYS_NOTHING = (AccessDenied, NotFound, Unsupported, BadContent, TooLarge, *UNREACHABLE)
"""What a question to a catalog fails with where that says nothing about repositories."""


class CatalogBelow:
    """Asks catalogs what is below a path."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._is_cache: TTLCache[str, bool] = TTLCache(_REGISTRIES_KEPT, _IS_CACHE_TTL_S)

    def has(self, registry: str, path: str) -> bool:
        """Tell whether *registry* lists a repository below *path*. Blocks on the network.

        Raises one of SAYS_NOTHING where its catalog cannot tell, Unsupported where it is that of a cache.
        """
        found = self._found_below(registry, path)
        if not found and self._is_of_a_cache(registry):
            raise Unsupported(f"{registry} lists what it has cached")
        return found

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
        try:
            self._registry.first_tags(RepositoryName(registry, _OF_THE_HUB))
        except SAYS_NOTHING:
            return False
        before = f"{_OF_THE_HUB[:-1]}{chr(ord(_OF_THE_HUB[-1]) - 1)}"
        page = self._registry.repositories_after(registry, before)
        return _OF_THE_HUB not in page.names and not (
            page.names and min(page.names) < before and _OF_THE_HUB in self._registry.repositories(registry)
        )
