"""All repositories of one mount, and what they share; which of them a registry has.

A registry that can be enumerated is (_catalog); one that refuses that, as Docker Hub and GHCR do, shows what is known:
visited or listed before. Used by app.py, which makes it, and the tree. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from weakref import WeakSet

from cachetools import LRUCache, TTLCache

from regfs.errors import AccessDenied, BadContent, NotFound, Offline, RegistryTimeout, Unsupported
from regfs.images.answers import NAMES_KEPT, STALE_TTL_S, UNREACHABLE, is_fresh
from regfs.images.existence import Existence
from regfs.images.hub_listing import HubListing
from regfs.images.repository import Repository
from regfs.images.sources import Sources
from regfs.model.names import DOCKER_HUB, RepositoryName
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.references import References
from regfs.telemetry.stats import Stats
from regfs.waiting.flights import Flights

log = logging.getLogger(__name__)


class Repositories:
    """All repositories of one mount, and what they share.

    *tag_ttl_s*: for how long an answer about a tag or a listing is taken as it is. *note* is told in a sentence why a
    registry's repositories are not listed: a listing shows what is known then, and has no errno to say so.
    """

    def __init__(
        self,
        registry: RegistryClient,
        *,
        blobs: BlobStore,
        references: References,
        flights: Flights,
        stats: Stats,
        tag_ttl_s: float,
        hub: HubListing | None = None,
        note: Callable[[str], None] = log.info,
    ) -> None:
        self.hub = hub
        self._note = note
        self.tag_ttl_s = tag_ttl_s
        self._sources = Sources(
            registry=registry, blobs=blobs, references=references, flights=flights, stats=stats, tag_ttl_s=tag_ttl_s
        )
        self.existence = Existence(self._sources, self.repository)
        self._lock = threading.Lock()
        self._repositories: LRUCache[RepositoryName, Repository] = LRUCache(NAMES_KEPT)
        # Those that are remembered, and those that a directory of the tree still holds.
        self._living: WeakSet[Repository] = WeakSet()
        self._unlistable: TTLCache[str, bool] = TTLCache(NAMES_KEPT, max(tag_ttl_s, 60.0))
        self._unreachable: TTLCache[str, bool] = TTLCache(NAMES_KEPT, STALE_TTL_S)

    def repository(self, name: RepositoryName) -> Repository:
        """Return the object for *name*; nothing is asked."""
        with self._lock:
            repository = self._repositories.get(name)
            if repository is None:
                repository = self._repositories[name] = Repository(name, self._sources)
                self._living.add(repository)
            return repository

    def refresh(self) -> None:
        """Let every tag and listing be asked for again when it is next wanted; where that fails, what is known serves.

        Hosts that failed a moment ago are asked again too. The cache is told, and with it the other daemons that share
        it. Nothing is asked now.
        """
        # First the hosts: a look-up between these steps would else remember that the registry does not answer.
        self._sources.registry.forget_failures()
        # A thread that keeps an answer on the disk sees afterwards whether a refresh has begun; a thread that reads one
        # from the disk, before it is expired there, keeps it in memory. So the memory is cleared before and after.
        self._refresh_memory()
        self._sources.references.expire_all()
        self._refresh_memory()

    def _refresh_memory(self) -> None:
        with self._lock:
            self._unlistable.clear()
            self._unreachable.clear()
            repositories = list(self._living)
        for repository in repositories:
            repository.refresh()
        self.existence.refresh()
        if self.hub is not None:
            self.hub.refresh()

    def known_registries(self) -> list[str]:
        """Return the registries of which something was seen; no network."""
        return self._sources.references.known_registries()

    def components_below(self, registry: str, path: str) -> set[str]:
        """Return the next components of the repositories below *path* that were seen or listed; no network."""
        return self._sources.references.components_below(registry, path)

    def is_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is a repository that was seen or listed; no network."""
        return self._sources.references.is_known(registry, path)

    def leads_to_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is such a repository, or begins the path of one ('': any at all); no network."""
        return self._sources.references.leads_to_known(registry, path)

    def ask_for_catalog(self, registry: str) -> None:
        """Let what is known be what the registry's catalog has, where there is one, and what was seen beside it.

        Blocks on the network where the catalog is older than the tag TTL. A catalog that is refused (Docker Hub,
        GHCR) or cannot be reached leaves what is known.
        """
        if registry == DOCKER_HUB:  # it grants no client the scope to list it (registry:catalog:*)
            return
        with self._lock:
            is_asked = registry not in self._unlistable and registry not in self._unreachable
        if is_asked and not is_fresh(self._sources.references.catalog(registry), self.tag_ttl_s):
            self._sources.flights.run(("catalog", registry), lambda: self._fetch_catalog(registry))

    def _fetch_catalog(self, registry: str) -> None:
        try:
            names = self._sources.registry.listing.repositories(registry)
        except (AccessDenied, NotFound, Unsupported, BadContent) as refusal:
            # Refused, not known, or a web page: it says nothing about repositories, which open by their names.
            self._note(f"{registry} does not list its repositories, so that ls shows what was visited: {refusal}")
            with self._lock:
                self._unlistable[registry] = True
            self.existence.no_catalog(registry)
        except UNREACHABLE as failure:
            self.existence.no_catalog(registry)
            if not isinstance(failure, Offline):
                self._note(f"{registry} cannot list its repositories, so that ls shows what is known: {failure}")
            with self._lock:
                # One that takes a minute and more will do so the next time.
                (self._unlistable if isinstance(failure, RegistryTimeout) else self._unreachable)[registry] = True
            if not self.leads_to_known(registry, ""):
                raise
        else:
            self._sources.references.keep_catalog(registry, names)
