"""The registry client: what the rest of regfs asks registries. Its parts are loaded when a registry is first asked.

Loading them takes a third of a daemon's start, and a mount that has cached what is asked for never needs them. So this
module imports nothing of the package; client_parts.py does. Built by app/composition.py, used by images. Thread rule:
shared by all threads; the first one makes the parts while the others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regfs.registry.blobs import Blobs
    from regfs.registry.client_parts import Parts
    from regfs.registry.docker_hub import Hub
    from regfs.registry.listing import Listing
    from regfs.registry.manifests import Manifests
    from regfs.registry.push import Pushes
    from regfs.registry.referrers import Referrers


class RegistryClient:
    """Asks registries, on behalf of all threads. *make* returns the parts; it is called once, and needs no network.

        client.manifests    tags to descriptors, manifests and indexes
        client.blobs        blobs, whole or a range
        client.listing      the tags of a repository, the repositories of a registry
        client.referrers    what refers to a manifest
        client.pushes       blobs and manifests, to the registry
        client.hub          the repositories in a namespace of Docker Hub

    Every method of a part blocks on the network, for as long as the thread's deadline allows, and raises

        WouldBlock, Interrupted   by the thread's deadline
        Offline                   in offline mode
        NotFound                  the registry itself says so; a mirror's "not found" does not count
        AccessDenied              after an attempt with the credentials that there are
        RateLimited               waiting would take too long
        RegistryTimeout           the registry, or the caller's deadline
        RegistryUnavailable       no connection, or nothing but server errors
        ProtocolViolation         an answer that makes no sense, an untrusted certificate
        DigestMismatch, TooLarge  wrong or too many bytes
    """

    def __init__(self, make: Callable[[], Parts]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._parts: Parts | None = None

    @property
    def manifests(self) -> Manifests:
        """Manifests and indexes."""
        return self.load().manifests

    @property
    def blobs(self) -> Blobs:
        """Blobs, whole or a range."""
        return self.load().blobs

    @property
    def listing(self) -> Listing:
        """Tags and repositories."""
        return self.load().listing

    @property
    def referrers(self) -> Referrers:
        """What refers to a manifest."""
        return self.load().referrers

    @property
    def pushes(self) -> Pushes:
        """Blobs and manifests, to the registry."""
        return self.load().pushes

    @property
    def hub(self) -> Hub:
        """Docker Hub's own API."""
        return self.load().hub

    def load(self) -> Parts:
        """Return the parts, made now if they are not there yet. Takes some 60 ms; no network."""
        if self._parts is None:
            with self._lock:
                self._parts = self._parts or self._make()
        return self._parts

    def forget_failures(self) -> None:
        """Allow requests to every host that failed or refused a moment ago; asks nothing itself.

        A host that asked for a pause (429, Retry-After) still gets it.
        """
        if self._parts is not None:
            self._parts.forget_failures()

    def close(self) -> None:
        """Close idle connections and stop credential helpers; transfers go on."""
        if self._parts is not None:
            self._parts.close()
