"""Builds the parts of the registry client from hosts, credentials and settings.

    manifests  blobs  listing  referrers      what is asked
    parallel                                  a big blob over several connections
    endpoint_calls                            at which address, with which authorization; mirrors in their order
    auth/known_demands                        what each registry demands
    http/retrying                             retries and redirects
    http/transport                            one HTTP request to one URL

Used by app/composition.py (through client.py) and tests. Thread rule: the parts are shared by all threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from regfs import __version__
from regfs.process.clocks import since_boot_s
from regfs.process.waiting.single_flight import Flights
from regfs.registry.auth.api_roots import ApiRoots
from regfs.registry.auth.known_demands import KnownDemands
from regfs.registry.auth.tokens import TokenServers
from regfs.registry.blobs import Blobs
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.docker_hub import HUB_URL, Hub
from regfs.registry.endpoint_calls import EndpointCalls
from regfs.registry.hosts.certificates import system_authorities
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.host_slots import HostSlots
from regfs.registry.http.retry_policy import RetryPolicy
from regfs.registry.http.retrying import RetryingSender
from regfs.registry.http.sockets import Pace
from regfs.registry.http.trust import Authorities
from regfs.registry.listing import Listing
from regfs.registry.manifests import Manifests
from regfs.registry.parallel import MAX_PIECE, ParallelTransfers
from regfs.registry.push import Pushes
from regfs.registry.referrers import Referrers
from regfs.telemetry.request_log import RequestLog
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.registry.http.transport import Transport

_DENIAL_S = 5.0
_TRANSFERS = 6
# A caller with a short deadline gives up; the fetch of the token or API root goes on for the next caller.
_LEAST_S = 60.0


class Parts:
    """The parts of one client, and what they share.

    *offline* refuses every request. *authorities* may sign the certificate of every host; the system's unless given.
    *pace* bounds how slow a registry may be, *retry* how often it is asked again. A token that was denied is asked for
    again after *denial_s*. A big blob comes over *connections*, as many as help unless given, in pieces of at most
    *max_piece* bytes. *request_log* notes each request.
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
        hub_url: str = HUB_URL,
        clock: Callable[[], float] = since_boot_s,
        denial_s: float = _DENIAL_S,
        connections: int | None = None,
        max_piece: int = MAX_PIECE,
        request_log: RequestLog | None = None,
    ) -> None:
        retry, pace = retry or RetryPolicy(), pace or Pace()

        def make_transport() -> Transport:
            from regfs.registry.http.transport import Transport  # an import of 90 ms, which a mount does not wait for

            return Transport(
                stats,
                user_agent=f"regfs/{__version__}",
                authorities=authorities or system_authorities({}),
                pace=pace,
                slots=HostSlots(documents=8, transfers=_TRANSFERS),
            )

        self._credentials = credentials
        self._sender = RetryingSender(
            stats, make_transport=make_transport, retry=retry, clock=clock, request_log=request_log or RequestLog()
        )
        flights = Flights(max(pace.longest_s, _LEAST_S))
        self._token_servers = TokenServers(self._sender, flights, stats, clock=clock, denial_s=denial_s)
        self._roots = ApiRoots(self._sender, flights, clock=clock)
        demands = KnownDemands(credentials, self._token_servers, self._roots, clock=clock)
        calls = EndpointCalls(hosts, self._roots, demands, self._sender, offline=offline)
        self.manifests = Manifests(calls)
        transfers = ParallelTransfers(stats, most=_TRANSFERS, fixed=connections, max_piece=max_piece)
        self.blobs = Blobs(calls, stats, retry=retry, transfers=transfers)
        self.listing = Listing(calls)
        self.pushes = Pushes(calls, self.manifests)
        self.referrers = Referrers(calls, self.manifests)
        self.hub = Hub(self._sender, flights, offline=offline, url=hub_url)

    def forget_failures(self) -> None:
        """Allow requests to every host that failed or refused a moment ago. See RegistryClient.forget_failures."""
        for part in (self._sender, self._roots, self._token_servers, self.hub):
            part.forget_failures()

    def close(self) -> None:
        """Close idle connections and stop credential helpers; transfers go on."""
        self._credentials.close()
        self._sender.close()
