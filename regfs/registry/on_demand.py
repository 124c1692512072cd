"""The registry client, made when a registry is asked for the first time.

Loading it takes a third of a daemon's start, and a mount that has cached what is asked for never needs it. Built by
app.py, used by images like the client itself. Thread rule: any thread; the first one makes the client, others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName

if TYPE_CHECKING:
    from regfs.registry.client import FetchedManifest, HubRepositories, RegistryClient
    from regfs.registry.listing import FirstPage


class OnDemand:
    """Asks the client that *make* returns, which is called once. The methods are the client's, and raise the same."""

    def __init__(self, make: Callable[[], RegistryClient]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: RegistryClient | None = None

    def client(self) -> RegistryClient:
        """Return the client. Never waits for the network."""
        if self._client is None:
            with self._lock:
                self._client = self._client or self._make()
        return self._client

    def forget_failures(self) -> None:
        """Let every host that failed a moment ago be asked again."""
        if self._client is not None:
            self._client.forget_failures()

    def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            self._client.close()

    def tags(self, repository: RepositoryName) -> list[str]:
        """Return the tags of *repository*. Blocks on the network."""
        return self.client().tags(repository)

    def repositories(self, registry: str) -> list[str]:
        """Return the repositories of *registry*. Blocks on the network."""
        return self.client().repositories(registry)

    def first_tags(self, repository: RepositoryName) -> FirstPage:
        """Return the first tags of *repository*. Blocks on the network."""
        return self.client().first_tags(repository)

    def repositories_after(self, registry: str, name: str) -> FirstPage:
        """Return the first repositories of *registry* after *name*. Blocks on the network."""
        return self.client().repositories_after(registry, name)

    def hub_namespace(self, name: str) -> HubRepositories:
        """Return what Docker Hub lists of the namespace *name*. Blocks on the network."""
        return self.client().hub_namespace(name)

    def resolve(self, repository: RepositoryName, tag: str, *, may_be_missing: bool = False) -> Descriptor:
        """Return what *tag* points to. Blocks on the network."""
        return self.client().resolve(repository, tag, may_be_missing=may_be_missing)

    def manifest(self, repository: RepositoryName, reference: str | Digest) -> FetchedManifest:
        """Return the manifest or index that *reference* names. Blocks on the network."""
        return self.client().manifest(repository, reference)

    def blob(self, repository: RepositoryName, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the bytes of a blob as they come. Blocks on the network."""
        return self.client().blob(repository, descriptor)
