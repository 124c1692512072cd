"""A registry client in front of fault servers, with the waits of a test: everything real but the network beyond.

    rig.client(server, login=("user", "secret"))      asks server by plain http, as hosts.toml says
    rig.client(server, mirrors=[mirror])              asks mirror first

Thread rule: belongs to one test.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from regfs.model.names import RepositoryName
from regfs.registry.client import RegistryClient
from regfs.registry.client_parts import Parts
from regfs.registry.credentials.lookup import Credentials
from regfs.registry.hosts.endpoints import Hosts
from regfs.registry.http.retry_policy import RetryPolicy
from regfs.registry.http.sockets import Pace
from regfs.telemetry.stats import Stats
from tests.support.fault_server import Application, FaultServer

# Where a server that comes back finds its port free: no client's connection of any test begins there.
ALONE = "127.0.0.3"
RETRY = RetryPolicy(attempts=4, base_s=0.001, cap_s=0.01, throttle_s=1.5, breaker_s=60.0)
PACE = Pace(connect_s=30.0, answer_s=30.0, longest_s=30.0, idle_s=30.0)
# For servers that hang: the client gives up soon.
IMPATIENT = Pace(connect_s=0.3, answer_s=0.3, longest_s=0.3, idle_s=0.3, rate=1024, window_s=0.3)
# For servers that hang beside others that answer, however busy the machine is.
LESS_IMPATIENT = Pace(connect_s=6.0, answer_s=6.0, longest_s=6.0, dispensable_s=2.0, idle_s=6.0, rate=64, window_s=6.0)
# For a mirror that says nothing: it is waited for to no purpose, and the registry as long as above.
SILENT_MIRROR = LESS_IMPATIENT._replace(dispensable_s=0.3)


class Rig:
    """Makes servers and clients for one test, and takes them down after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stats = Stats()
        self.servers: list[FaultServer] = []
        self._clients: list[RegistryClient] = []

    def server(
        self,
        application: Application | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> FaultServer:
        """Return a server, on a free port unless *port* is given."""
        server = FaultServer(application, host=host, port=port, tls=tls)
        self.servers.append(server)
        return server

    def client(
        self,
        server: FaultServer,
        *,
        login: tuple[str, str] | None = None,
        logins: Mapping[str, tuple[str, str]] | None = None,
        mirrors: Sequence[FaultServer] = (),
        mirror_options: str = "",
        options: str = "",
        retry: RetryPolicy = RETRY,
        pace: Pace = PACE,
        environment: Mapping[str, str] | None = None,
        **more: object,
    ) -> RegistryClient:
        """Return a client that knows *server* and *mirrors* as hosts.toml tells, and the given logins."""
        tables = [f'server = "{server.url}"', options]
        tables += [f'[host."{mirror.url}"]\n{mirror_options}' for mirror in mirrors]
        self.hosts_toml(server.address, "\n".join(tables))
        known = dict(logins or {})
        if login is not None:
            known[server.address] = login
        self.write_logins(known)
        client = client_of(
            Hosts(hosts_directories=[self.directory / "hosts"]),
            Credentials({"HOME": str(self.directory), **(environment or {})}),
            self.stats,
            retry=retry,
            pace=pace,
            **more,
        )
        self._clients.append(client)
        return client

    def hosts_toml(self, registry: str, text: str) -> None:
        """Write the hosts.toml of *registry*."""
        file = self.directory / "hosts" / registry / "hosts.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_logins(self, logins: Mapping[str, tuple[str, str]]) -> None:
        """Write docker's config.json with *logins* by host."""
        auths = {host: {"auth": base64.b64encode(":".join(pair).encode()).decode()} for host, pair in logins.items()}
        self.write_config({"auths": auths})

    def write_config(self, document: object) -> None:
        """Write docker's config.json."""
        file = self.directory / ".docker" / "config.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document))

    def stop(self) -> None:
        """Take everything down."""
        for client in self._clients:
            client.close()
        for server in self.servers:
            server.stop()


def client_of(hosts: Hosts, credentials: Credentials, stats: Stats, **options: object) -> RegistryClient:
    """Return a client whose parts are made already, with the *options* of Parts."""
    parts = Parts(hosts, credentials, stats, **options)  # type: ignore[arg-type]
    return RegistryClient(lambda: parts)


def repository_of(server: FaultServer, path: str = "demo/app") -> RepositoryName:
    """Return the name of the repository *path* at *server*."""
    return RepositoryName(server.address, path)


def basic(user: str, password: str) -> str:
    """Return the Basic authorization of *user*."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def saw_no_secret(server: FaultServer, *secrets: str) -> bool:
    """Tell whether no request to *server* had an Authorization, a cookie, or one of *secrets* anywhere."""
    for seen in server.seen:
        text = f"{seen.path} {list(seen.headers.items())} {seen.body!r}"
        if "authorization" in seen.headers or "cookie" in seen.headers or any(secret in text for secret in secrets):
            return False
    return True
