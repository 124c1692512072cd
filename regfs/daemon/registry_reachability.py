"""Whether the default registry takes a connection: resolves its name and connects, without sending a request.

A mount starts without a network and asks nothing before the first look-up, so that a mistyped registry would look like
an empty directory. The parent that waits for the daemon's start tries the registry meanwhile (Attempt) and reports what
it knows by then. The daemon tries again later, for `.regfs/errors`.

Used by the command line and serve.py. Thread rule: an Attempt has a thread of its own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from regfs.app.config import Config
from regfs.errors import OutOfThreads, RegfsError, RegistryUnavailable
from regfs.process.threads import start_thread

if TYPE_CHECKING:
    from regfs.registry.hosts.endpoints import Endpoint

_CONNECT_S = 5.0
_MOST_ADDRESSES = 4
# How long a slow resolver may hold up the report of a mount that is ready.
_RESOLVING_S = 0.2
# A host that refuses connections does so within this time.
_REFUSING_S = 0.05
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


class Attempt:
    """One attempt to reach the default registry of *config*, in a thread."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self._config = config
        self._environment = environment
        self._may_be_told = threading.Event()
        self._ended = threading.Event()
        self._failure: RegfsError | None = None

    def start(self) -> None:
        """Begin. Where no thread can be started, failure() returns None."""
        try:
            start_thread(self._run, name="regfs-reachability")
        except OutOfThreads:
            self._end()

    def failure(self) -> RegfsError | None:
        """Return why the registry cannot be reached; None where it can, or where finding out takes longer.

        Waits for a moment while the name is still being resolved, and for a shorter one for a refusal.
        """
        self._may_be_told.wait(_RESOLVING_S)
        self._ended.wait(_REFUSING_S)
        return self._failure

    def _run(self) -> None:
        try:
            self._failure = failure_to_reach(self._config, self._environment, on_resolved=self._may_be_told.set)
        finally:
            self._end()

    def _end(self) -> None:
        self._may_be_told.set()
        self._ended.set()


def failure_to_reach(
    config: Config, environment: Mapping[str, str], *, on_resolved: Callable[[], object] = lambda: None
) -> RegfsError | None:
    """Return why no address of the default registry takes a connection; None where one does, or a proxy is between.

    *on_resolved* is called once the name is resolved and connecting begins. Blocks on the network: for what the
    resolver takes, and some seconds more.
    """
    if config.offline or any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return None
    from regfs.registry.hosts.endpoints import Hosts  # 14 ms that a start does not have

    failure: RegfsError | None = None
    try:
        endpoints = Hosts.of_machine(environment, insecure=config.insecure_registries).endpoints(
            config.default_registry
        )
        for endpoint in endpoints:
            failure = _try(endpoint, on_resolved if endpoint is endpoints[-1] else lambda: None)
            if failure is None:
                return None
    except RegfsError as error:  # its hosts.toml cannot be read, or registries.conf blocks it
        return error
    return failure


def _try(endpoint: Endpoint, on_resolved: Callable[[], object]) -> RegfsError | None:
    """Return why *endpoint* takes no connection, None where it does."""
    from urllib.parse import urlsplit  # with the hosts, in a process that has time

    where = urlsplit(endpoint.base)
    host = where.hostname or ""
    ports = [where.port] if where.port else [80] if where.scheme == "http" else [443]
    if endpoint.plain_http == "fallback" and not where.port:
        ports.append(80)
    try:
        addresses = [address for port in ports for address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        return RegistryUnavailable(f"{endpoint.host} does not answer: its name cannot be resolved ({_reason(error)})")
    on_resolved()
    reasons = []
    for family, kind, protocol, _, address in addresses[:_MOST_ADDRESSES]:
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(_CONNECT_S)
                connection.connect(address)
        except OSError as error:
            reasons.append(_reason(error))
        else:
            return None
    return RegistryUnavailable(f"{endpoint.host} does not answer: {', '.join(dict.fromkeys(reasons))}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {_CONNECT_S:g} s"
    return getattr(error, "strerror", None) or str(error)
