"""All repositories of one mount, what they share, and the listing of a registry's repositories.

A registry with a catalog (_catalog) is listed by it. For a registry that refuses it, as Docker Hub and GHCR do, known
repositories are listed: those that were visited or listed before. Used by app/composition.py, which makes it, and the
tree. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cachetools import LRUCache

from regfs.errors import AccessDenied, BadContent, NotFound, Offline, RegistryTimeout, Unsupported
from regfs.images.answers.existence import Existence
from regfs.images.answers.manifests import missing_manifests
from regfs.images.answers.remembered import STALE_TTL_S, UNREACHABLE, Refreshes, Remembered
from regfs.images.answers.tags import TagAnswers
from regfs.images.repository import Repository
from regfs.model.names import DOCKER_HUB, RepositoryName
from regfs.process.waiting.single_flight import Flights
from regfs.registry.client import RegistryClient
from regfs.store.blobs import BlobStore
from regfs.store.references.references import References, left_s
from regfs.store.references.tag_history import TagHistory
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from pathlib import Path

    from regfs.images.adoption import Adoption
    from regfs.registry.docker_hub import Hub

log = logging.getLogger(__name__)

_REPOSITORIES_KEPT = 1024
_UNLISTABLE_TTL_S = 60.0


class Repositories:
    """All repositories of one mount, and what they share."""

    def __init__(
        self,
        registry: RegistryClient,
        *,
        store: BlobStore,
        references: References,
        flights: Flights,
        stats: Stats,
        tag_ttl_s: float,
        hub_listing: bool = False,
        note: Callable[[str], None] = log.info,
    ) -> None:
        """*tag_ttl_s*: how many seconds an answer about a tag or a listing is valid.

        *hub_listing*: Docker Hub's API may be asked for the repositories of a namespace. *note* is called with a
        sentence that says why a registry's repositories are not listed (the listing then shows known ones, without an
        error), or why it is not known what a tag pointed to.
        """
        self.tag_ttl_s = tag_ttl_s
        self._registry = registry
        self._store = store
        self._references = references
        self._flights = flights
        self._stats = stats
        self._hub_listing = hub_listing
        self._note = note
        self._refreshes = refreshes = Refreshes()
        self._tags = TagAnswers(refreshes, ttl_s=tag_ttl_s, note=note)
        self._missing = missing_manifests(refreshes, ttl_s=tag_ttl_s)
        self._unlistable: Remembered[str, bool] = Remembered(refreshes, ttl_s=max(tag_ttl_s, _UNLISTABLE_TTL_S))
        self._unreachable: Remembered[str, bool] = Remembered(refreshes, ttl_s=STALE_TTL_S)
        self._lock = threading.Lock()
        self._repositories: LRUCache[RepositoryName, Repository] = LRUCache(_REPOSITORIES_KEPT)
        self.existence = Existence(
            registry,
            references,
            lambda name: self.repository(name).tags,
            flights=flights,
            refreshes=refreshes,
            ttl_s=tag_ttl_s,
        )

    def repository(self, name: RepositoryName) -> Repository:
        """Return the repository *name*. Makes no request."""
        with self._lock:
            repository = self._repositories.get(name)
            if repository is None:
                repository = self._repositories[name] = Repository(
                    name,
                    registry=self._registry,
                    store=self._store,
                    references=self._references,
                    tags=self._tags,
                    missing=self._missing,
                    flights=self._flights,
                    stats=self._stats,
                )
            return repository

    def adoption(self, hold: Callable[[Path], object]) -> Adoption:
        """Return an Adoption, which enters content of archives; *hold* keeps files from eviction meanwhile."""
        from regfs.images.adoption import Adoption

        return Adoption(self._store, self._references, hold)

    @property
    def hub(self) -> Hub | None:
        """Docker Hub's API, None unless the user allows its use."""
        return self._registry.hub if self._hub_listing else None

    def refresh(self) -> None:
        """Expire every tag and listing, so that the next use asks the registry; if that fails, the old answer is used.

        Hosts that failed a moment ago are asked again too. The refresh is recorded in the cache, for other daemons that
        share it. Makes no request.
        """
        # The hosts come first: otherwise a look-up between these steps could store that the registry does not answer.
        self._registry.forget_failures()
        # A thread that stores an answer on the disk checks afterwards whether a refresh has begun. A thread that reads
        # an answer from the disk before it is expired there stores it in memory. So the memory is cleared before and
        # after.
        self._refreshes.refresh()
        self._references.expire_all()
        self._refreshes.refresh()

    @property
    def history(self) -> TagHistory:
        """The history of what tags pointed to."""
        return self._references.history

    def known_registries(self) -> list[str]:
        """Return the registries that were visited or listed; no network."""
        return self._references.repositories.known_registries()

    def components_below(self, registry: str, path: str) -> set[str]:
        """Return the next components of known repositories below *path*; no network."""
        return self._references.repositories.components_below(registry, path)

    def is_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is a known repository: visited or listed; no network."""
        return self._references.repositories.is_known(registry, path)

    def leads_to_known(self, registry: str, path: str) -> bool:
        """Tell whether *path* is a known repository or above one ('': whether any is known); no network."""
        return self._references.repositories.leads_to_known(registry, path)

    def ask_for_catalog(self, registry: str) -> None:
        """Update the known repositories from the registry's catalog; visited ones that it lacks stay known.

        Blocks on the network if the catalog is older than the tag TTL. If it is refused (Docker Hub, GHCR) or cannot be
        reached, the known repositories stay as they are.
        """
        if registry == DOCKER_HUB:  # it grants no client the scope to list it (registry:catalog:*)
            return
        if registry in self._unlistable or registry in self._unreachable:
            return
        if left_s(self._references.repositories.catalog_checked(registry), self.tag_ttl_s) <= 0:
            self._flights.run(("catalog", registry), lambda: self._fetch_catalog(registry))

    def _fetch_catalog(self, registry: str) -> None:
        try:
            names = self._registry.listing.repositories(registry)
        except (AccessDenied, NotFound, Unsupported, BadContent) as refusal:
            # Refused, not known, or a web page: it says nothing about repositories, which open by their names.
            self._note(f"{registry} does not list its repositories, so that ls shows what was visited: {refusal}")
            self._unlistable.keep(registry, True)
            self.existence.no_catalog(registry)
        except UNREACHABLE as failure:
            self.existence.no_catalog(registry)
            if not isinstance(failure, Offline):
                self._note(f"{registry} cannot list its repositories, so that ls shows what is known: {failure}")
            # A catalog that takes a minute or more would take as long the next time.
            (self._unlistable if isinstance(failure, RegistryTimeout) else self._unreachable).keep(registry, True)
            if not self.leads_to_known(registry, ""):
                raise
        else:
            self._references.repositories.keep_catalog(registry, names)
