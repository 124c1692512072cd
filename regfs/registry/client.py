"""The registry client: what the rest of regfs asks registries.

Built by serve.py, used by images. The verbs are in modules of their own: documents.py, blobs.py, listing.py,
referrers.py. Below them calls.py finds address and credentials, exchange.py retries and redirects, transport.py
sends. Thread rule: a RegistryClient is shared by all threads; every call runs under the calling thread's deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from regfs import __version__
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import RepositoryName
from regfs.registry.auth.login import Authenticator
from regfs.registry.auth.roots import Roots
from regfs.registry.auth.tokens import TokenServers
from regfs.registry.blobs import Blobs
from regfs.registry.calls import Calls
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.documents import Documents, FetchedManifest
from regfs.registry.hosts.certificates import Authorities, system_authorities
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.exchange import Exchange
from regfs.registry.http.retry import RetryPolicy
from regfs.registry.http.slots import HostSlots
from regfs.registry.http.sockets import Pace
from regfs.registry.hub import HUB_URL, Hub, HubRepositories
from regfs.registry.listing import FirstPage, Listing
from regfs.registry.referrers import Referrers
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.registry.http.transport import Transport

__all__ = ["FetchedManifest", "HubRepositories", "RegistryClient"]

_DENIAL_S = 5.0


class RegistryClient:
    """Asks registries, on behalf of all threads.

    *offline* refuses whatever would need the network. *authorities* are those that every host may be signed
    by, the system's unless given. *pace* and *retry* say how slow a registry may be and how often
    it is asked again. *private_redirects* lets a registry on the internet send us to private addresses, where some
    keep their storage. Every method blocks on the network, for as long as the thread's deadline allows, and raises

        WouldBlock, Interrupted     by the thread's deadline
        Offline                   in offline mode
        NotFound                  a host with the last word says so
        AccessDenied              after an attempt with the credentials that there are
        RateLimited               waiting would take too long
        RegistryTimeout           the registry, or the caller's deadline
        RegistryUnavailable       no connection, or nothing but server errors
        ProtocolViolation         an answer that makes no sense, an untrusted certificate
        DigestMismatch, TooLarge  where bytes are checked
    """

    def __init__(
        self,
        hosts: Hosts,
        credentials: Credentials,
        stats: Stats,
        *,
        offline: bool = False,
        authorities: Authorities | None = None,
        pace: Pace | None = None,
        retry: RetryPolicy | None = None,
        slots: HostSlots | None = None,
        private_redirects: bool = False,
        user_agent: str = f"regfs/{__version__}",
        hub_url: str = HUB_URL,
        clock: Callable[[], float] = time.monotonic,
        denial_s: float = _DENIAL_S,
    ) -> None:
        retry = retry or RetryPolicy()

        def make_transport() -> Transport:
            from regfs.registry.http.transport import Transport  # costs 90 ms, which a mount need not wait for

            return Transport(
                stats,
                user_agent=user_agent,
                authorities=authorities or system_authorities({}),
                pace=pace or Pace(),
                slots=slots or HostSlots(documents=8, transfers=6),
            )

        self._credentials = credentials
        self._exchange = Exchange(
            stats, make_transport=make_transport, retry=retry, private_redirects=private_redirects, clock=clock
        )
        self._token_servers = TokenServers(self._exchange, stats, clock=clock, denial_s=denial_s)
        self._roots = Roots(self._exchange, clock=clock)
        authenticator = Authenticator(credentials, self._token_servers, self._roots, clock=clock)
        calls = Calls(hosts, self._roots, authenticator, self._exchange, offline=offline)
        self._documents = Documents(calls)
        self._blobs = Blobs(calls, stats, retry=retry)
        self._listing = Listing(calls)
        self._hub = Hub(self._exchange, offline=offline, url=hub_url)
        self._referrers = Referrers(calls, self._documents)

    def tags(self, repository: RepositoryName) -> list[str]:
        """Return all tags of *repository*, sorted: valid ones, without those that stand for signatures and the like."""
        return self._listing.tags(repository)

    def repositories(self, registry: str) -> list[str]:
        """Return the paths of all repositories that *registry* lists, sorted.

        NotFound, AccessDenied, Unsupported or ProtocolViolation where it cannot be listed, which says nothing about
        its repositories.
        """
        return self._listing.repositories(registry)

    def first_tags(self, repository: RepositoryName) -> FirstPage:
        """Return the first tags of *repository* and whether they are all: the cheapest proof that it is there.

        RepositoryUnknown is the registry's own word that it is not; any other error says nothing about it.
        """
        return self._listing.first_tags(repository)

    def repositories_after(self, registry: str, name: str) -> FirstPage:
        """Return the first repositories of *registry* that come after *name*, one or more, and whether they are all.

        Some registries pass over where to begin; then what comes is not after *name*. Raises as repositories() does.
        """
        return self._listing.repositories_after(registry, name)

    def hub_namespace(self, namespace: str) -> HubRepositories:
        """Return the repositories in *namespace* of Docker Hub, which its registry does not list.

        Asks another host than the registry, with limits of its own, and without credentials: for those who opted in.
        """
        return self._hub.namespace(namespace)

    def resolve(self, repository: RepositoryName, tag: str, *, may_be_missing: bool = False) -> Descriptor:
        """Return the descriptor of what *tag* names now: by HEAD, which costs no quota, where the registry can.

        A tag that *may_be_missing* is asked for by GET at once, but not on Docker Hub: only a GET is believed when it
        says that a tag is not there.
        """
        return self._documents.resolve(repository, tag, may_be_missing=may_be_missing)

    def manifest(self, repository: RepositoryName, reference: str | Digest) -> FetchedManifest:
        """Return the exact bytes of a manifest or index; their digest is verified, or computed for a tag.

        A signed schema 1 manifest comes without its signatures: its digest is over the rest.
        """
        return self._documents.fetch(repository, reference)

    def blob(self, repository: RepositoryName, descriptor: Descriptor) -> Iterator[bytes]:
        """Give exactly `descriptor.size` bytes in chunks, or raise; a transfer that breaks off is resumed.

        The caller hashes: only the end of the iteration says that all is there, and only the digest that it is right.
        """
        return self._blobs.stream(repository, descriptor)

    def blob_range(self, repository: RepositoryName, descriptor: Descriptor, start: int, stop: int) -> bytes:
        """Return exactly the bytes `[start, stop)` of a blob; the caller has a digest to check them against."""
        return self._blobs.range(repository, descriptor, start=start, stop=stop)

    def referrers(self, repository: RepositoryName, digest: Digest) -> list[Descriptor]:
        """Return the manifests whose subject is *digest*, as the registry tells: claims, like every listing."""
        return self._referrers.of(repository, digest)

    def forget_failures(self) -> None:
        """Let every host that failed or refused a moment ago be asked again; asks nothing itself.

        A host that asked to be left alone for a time (429, Retry-After) still is.
        """
        for part in (self._exchange, self._roots, self._token_servers):
            part.forget_failures()

    def close(self) -> None:
        """Close idle connections and stop credential helpers; transfers go on."""
        self._credentials.close()
        self._exchange.close()
