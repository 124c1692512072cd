"""The endpoints of a registry: at which addresses it is asked, in which order, with which certificates.

Used by endpoint_calls.py and auth/. An Endpoint is a mirror or the registry itself. They come from containerd's
hosts.toml directories or else podman's registries.conf, from Docker's and podman's certificate directories, and from
--insecure-registry.
Sources: containerd, docs/hosts.md; containers-certs.d(5); Docker, "Verify repository client with certificates".
Thread rule: any thread; no network. Files are read again after some seconds.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cachetools import TTLCache

from regfs.errors import AccessDenied, BadConfiguration, InvalidOption
from regfs.model.names import DOCKER_HUB
from regfs.process.clocks import since_boot_s
from regfs.process.regular_files import read_regular_file
from regfs.process.user import configuration_directory
from regfs.registry.hosts.certificates import NO_CERTIFICATES, Certificates, certificates_in
from regfs.registry.hosts.registries_conf import Location, RegistriesConf, Rule, registries_files
from regfs.registry.hosts.toml_files import FILE_LIMIT, LastGood
from regfs.registry.http.addresses import is_loopback
from regfs.registry.http.trust import Tls

if TYPE_CHECKING:
    from regfs.registry.hosts.hosts_toml import HostsFile, HostTable

log = logging.getLogger(__name__)

HUB_HOST = "registry-1.docker.io"
ALL_CAPABILITIES = frozenset({"pull", "resolve", "referrers"})
PlainHttp = Literal["never", "always", "fallback"]
_LOOKED_AT_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a registry.

    *base* is `https://host[:port]/v2`. With *plain_http* `fallback`, https is tried first, and http if the address does
    not speak TLS. Only the 404 of an *upstream* endpoint counts: a mirror's means nothing. *namespace* is the name of
    the registry for the query `ns=`, None if the host is that registry. *insecure*: the user allowed plain http, or TLS
    without checks.
    """

    base: str
    host: str
    upstream: bool
    capabilities: frozenset[str] = field(default=ALL_CAPABILITIES, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False, repr=False)
    tls: Tls = field(default_factory=Tls, kw_only=True)
    plain_http: PlainHttp = field(default="never", kw_only=True)
    namespace: str | None = field(default=None, kw_only=True)
    insecure: bool = field(default=False, kw_only=True)


def hosts_directories(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where hosts.toml files are looked for: containerd's directory, the user's (nerdctl's) before it."""
    return (*_user_directories(environment, "containerd/certs.d"), Path("/etc/containerd/certs.d"))


def certificate_directories(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where directories of certificates, one for each registry, are looked for: podman's and Docker's."""
    system = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
    return (*_user_directories(environment, "containers/certs.d"), *system)


class Hosts:
    """Tells the endpoints of registries.

    *insecure* are registries (`host[:port]`, or networks such as 10.0.0.0/8) that may be asked by plain http, and whose
    certificates are not checked. Loopback may be asked by plain http too, but its certificates are checked.
    """

    def __init__(
        self,
        *,
        insecure: Collection[str] = (),
        hosts_directories: Sequence[Path] = (),
        certificate_directories: Sequence[Path] = (),
        registries_files: tuple[Sequence[Path], Sequence[Path]] = ((), ()),
        clock: Callable[[], float] = since_boot_s,
    ) -> None:
        self._insecure = frozenset(insecure)
        self._insecure_networks = _networks(insecure)
        self._hosts_directories = tuple(hosts_directories)
        self._certificate_directories = tuple(certificate_directories)
        self._registries = RegistriesConf(*registries_files)
        self._lock = threading.Lock()
        self._recent: TTLCache[str, tuple[Endpoint, ...]] = TTLCache(1024, _LOOKED_AT_AGAIN_S, timer=clock)
        self._last_good: LastGood[HostsFile] = LastGood()

    @classmethod
    def of_machine(cls, environment: Mapping[str, str], *, insecure: Collection[str] = ()) -> Hosts:
        """Return the hosts as the files of this machine and of the user that *environment* describes have them."""
        return cls(
            insecure=insecure,
            hosts_directories=hosts_directories(environment),
            certificate_directories=certificate_directories(environment),
            registries_files=registries_files(environment),
        )

    def endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        """Return the endpoints of *registry* (a canonical name) in the order of trial: mirrors, then the registry.

        Raises BadConfiguration if its hosts.toml could never be parsed: to go past a mirror that an administrator
        prescribes would be worse than to fail. Raises AccessDenied if registries.conf blocks the registry.
        """
        with self._lock:
            known = self._recent.get(registry)
        if known is None:
            known = self._endpoints(registry)
            with self._lock:
                self._recent[registry] = known
        return known

    def _endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        directory = self._directory(registry)
        file = None if directory is None else self._load(directory / "hosts.toml", registry)
        if file is None:
            return self._without_hosts_toml(registry, certificates_in(directory) if directory else NO_CERTIFICATES)
        mirrors = [self._told(table, registry, upstream=False) for table in file.hosts]
        server = file.server
        last = self._upstream(registry) if server is None else self._told(server, registry, upstream=True)
        return (*mirrors, last)

    def _without_hosts_toml(self, registry: str, certificates: Certificates) -> tuple[Endpoint, ...]:
        rule = self._registries.rule(registry)
        if rule is None:
            return (self._upstream(registry, certificates),)
        if rule.blocked:
            raise AccessDenied(f"{registry} is blocked in registries.conf")
        mirrors = [self._mirror(location) for location in rule.mirrors]
        return (*mirrors, self._primary(rule, registry, certificates))

    def _mirror(self, mirror: Location) -> Endpoint:
        capabilities = ALL_CAPABILITIES - {"resolve"} if mirror.digest_only else ALL_CAPABILITIES
        endpoint = self._upstream(mirror.host, path=mirror.path, insecure=mirror.insecure)
        return replace(endpoint, upstream=False, capabilities=capabilities)

    def _primary(self, rule: Rule, registry: str, certificates: Certificates) -> Endpoint:
        place = rule.location or Location(registry, "")
        return self._upstream(place.host, certificates, path=place.path, insecure=rule.insecure)

    def _directory(self, registry: str) -> Path | None:
        """Return the directory that containerd would read for *registry*, None if there is none."""
        host, colon, port = _split_port(registry)
        names = [f"{host}_{port}_", registry] if colon else [registry]
        for name in (*names, "_default"):
            for root in self._hosts_directories:
                directory = root / name
                try:
                    if directory.is_dir():
                        return directory
                except OSError as error:
                    log.debug("%s cannot be looked at: %s", directory, error)
        return None

    def _load(self, path: Path, registry: str) -> HostsFile | None:
        """Return the content of *path*, None if there is no file; the last good reading while it cannot be parsed."""
        try:
            content = read_regular_file(path, FILE_LIMIT)
        except FileNotFoundError:
            self._last_good.forget(path)
            return None
        except OSError as error:
            raise BadConfiguration(
                f"{path}, which tells where {registry} is, cannot be read: {error.strerror}"
            ) from error
        from regfs.registry.hosts.hosts_toml import parse_hosts  # with a reader of TOML, which most machines do without

        return self._last_good.read(path, lambda: parse_hosts(content, path=path))

    def _upstream(
        self, registry: str, certificates: Certificates = NO_CERTIFICATES, *, path: str = "", insecure: bool = False
    ) -> Endpoint:
        """Return the registry itself, as it is reached where no hosts.toml says otherwise."""
        host = _api_host(registry)
        insecure = insecure or self._is_insecure(host) or self._is_insecure(registry)
        plain_http = _plain_http(host, insecure=insecure)
        return Endpoint(
            f"{'http' if plain_http == 'always' else 'https'}://{host}/v2{path}",
            host,
            True,
            tls=self._tls(registry, certificates, verify=not insecure),
            plain_http=plain_http,
            insecure=insecure,
        )

    def _told(self, table: HostTable, registry: str, *, upstream: bool) -> Endpoint:
        """Return the endpoint of a table of hosts.toml; the scheme in its URL decides about TLS."""
        host = _api_host(table.host)
        insecure = self._is_insecure(host) or table.skip_verify
        return Endpoint(
            f"{table.scheme}://{host}{table.path}",
            host,
            upstream,
            capabilities=ALL_CAPABILITIES if table.capabilities is None else table.capabilities,
            headers=table.headers,
            tls=self._tls(host, table.certificates, verify=not insecure),
            plain_http="always" if table.scheme == "http" else "never",
            namespace=None if host == _api_host(registry) else registry,
            insecure=insecure,
        )

    def _tls(self, registry: str, certificates: Certificates, *, verify: bool) -> Tls:
        found = certificates
        for root in self._certificate_directories:
            found = found.with_more(certificates_in(root / registry))
        return Tls(found.ca_files, found.client_pair, verify)

    def _is_insecure(self, host: str) -> bool:
        if host in self._insecure:
            return True
        try:
            address = ipaddress.ip_address(_split_port(host)[0].strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in self._insecure_networks)


def _api_host(registry: str) -> str:
    return HUB_HOST if registry == DOCKER_HUB else registry


def _networks(names: Collection[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for name in names:
        if "/" in name:
            try:
                networks.append(ipaddress.ip_network(name, strict=False))
            except ValueError as error:
                raise InvalidOption(f"--insecure-registry {name}: {error}") from None
    return networks


def _plain_http(host: str, *, insecure: bool) -> PlainHttp:
    """Return whether *host* may be asked by plain http: loopback, or if *insecure* (containerd, registry.go)."""
    name, _, port = _split_port(host)
    if port == "443" or not (insecure or is_loopback(name)):
        return "never"
    return "always" if port == "80" else "fallback"


def _split_port(host: str) -> tuple[str, str, str]:
    """Return `[::1]`, `:` and `5000` for `[::1]:5000`; the last two are empty where there is no port."""
    name, colon, port = host.rpartition(":")
    return (name, colon, port) if colon and not port.endswith("]") else (host, "", "")


def _user_directories(environment: Mapping[str, str], name: str) -> tuple[Path, ...]:
    configuration = configuration_directory(environment)
    return () if configuration is None else (configuration / name,)
