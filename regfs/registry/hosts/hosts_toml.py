"""hosts.toml: containerd's file with the hosts that are asked before a registry's own, or in its place.

Used by endpoints.py. An example, /etc/containerd/certs.d/docker.io/hosts.toml:

    server = "https://registry-1.docker.io"
    [host."https://mirror.example:5000"]
      capabilities = ["pull", "resolve"]
      ca = "mirror.crt"

Source: containerd, docs/hosts.md and core/remotes/docker/config/hosts.go. Pure; any thread.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from regfs.errors import InvalidName
from regfs.model.names import canonical_registry
from regfs.registry.hosts.certificates import Certificates
from regfs.registry.hosts.toml_files import TomlTable, parse_toml

log = logging.getLogger(__name__)

_KEYS = frozenset(
    ["server", "host", "capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"]
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t -~]*", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class HostTable:
    """One host: `scheme://host path`, and how it is asked. *capabilities* None means all."""

    scheme: str
    host: str
    path: str
    capabilities: frozenset[str] | None = None
    certificates: Certificates = field(default_factory=Certificates)
    skip_verify: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True, slots=True)
class HostsFile:
    """The hosts in the order of the file, and the server that is asked last; None: the registry itself."""

    hosts: tuple[HostTable, ...]
    server: HostTable | None


def parse_hosts(content: bytes, *, path: Path) -> HostsFile:
    """Return what the hosts.toml *content* says; *path* is the file's, for messages and for relative names in it.

    Raises BadConfiguration.
    """
    document = parse_toml(content, path)
    server = document.values.get("server")
    hosts = document.table("host")
    return HostsFile(
        tuple(_host(hosts.table(url)._replace(words=(url,)), url) for url in hosts.values),
        None if server in (None, "") else _host(document, document.text("server")),
    )


def _host(table: TomlTable, url: str) -> HostTable:
    """Return the host at *url* with the settings of *table*."""
    for key in sorted(set(table.values) - _KEYS):
        log.warning("%s: %.100r is not a key that regfs knows", table.file.path, key)
    scheme, host, path = _address(table, url)
    return HostTable(
        scheme,
        host,
        path,
        frozenset(table.strings("capabilities")) if "capabilities" in table.values else None,
        Certificates(tuple(_absolute(table, name) for name in table.strings("ca")), _client_pair(table)),
        table.boolean("skip_verify"),
        _headers(table),
    )


def _address(table: TomlTable, url: str) -> tuple[str, str, str]:
    if "@" in url:  # not quoted: there may be a password in it
        table.fail("a URL with a user name in it is not the URL of a host", url)
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        canonical_registry(parts.netloc)  # for its grammar; a Docker Hub alias stays the host that is meant
    except (ValueError, InvalidName):
        table.fail(f"{url[:200]!r} is not the URL of a host", url)
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        table.fail(f"{url[:200]!r} is not an http or https URL of a host", url)
    path = posixpath.normpath(f"/{parts.path}").replace("//", "/").rstrip("/")
    if not _PATH.fullmatch(path):
        table.fail(f"the path of {url[:200]!r} has characters that regfs does not send", url)
    if not table.boolean("override_path") and not path.endswith("/v2"):
        path += "/v2"
    return parts.scheme, parts.netloc.lower(), path


def _client_pair(table: TomlTable) -> tuple[str, str | None] | None:
    """Return the client's certificate and key: "both.pem", ["both.pem"] or [["certificate.pem", "key.pem"]]."""
    client = table.values.get("client", [])
    choices = [client] if isinstance(client, str) else client
    if not isinstance(choices, list):
        table.fail("client is neither a file nor a list of them", "client")
    if not choices:
        return None
    if len(choices) > 1:
        log.warning("%s: of several client certificates the first is used", table.file.path)
    files = table.strings_in(choices[0], "client")
    if not 1 <= len(files) <= 2:
        table.fail("client is not a certificate and a key", "client")
    return _absolute(table, files[0]), _absolute(table, files[1]) if len(files) == 2 and files[1] else None


def _headers(table: TomlTable) -> dict[str, str]:
    headers = {}
    for name, value in table.table("header").values.items():
        text = ", ".join(table.strings_in(value, "header"))
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
            table.fail(f"header {name[:100]!r} has characters that no header may have", name)
        headers[name] = text
    return headers


def _absolute(table: TomlTable, name: str) -> str:
    return str(table.file.path.parent / name)
