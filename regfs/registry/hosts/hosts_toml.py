"""hosts.toml: containerd's file that tells where a registry is asked instead of, or before, its own host.

Used by endpoints.py alone. An example, /etc/containerd/certs.d/docker.io/hosts.toml:

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
from typing import NoReturn
from urllib.parse import urlsplit

from regfs.errors import InvalidName
from regfs.model.names import canonical_registry
from regfs.registry.hosts.certificates import Certificates
from regfs.registry.hosts.toml_files import ConfigurationFile, parse_toml

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
    file, document = parse_toml(content, path)
    hosts = _Table(document, file, ()).table("host")
    server = document.get("server")
    return HostsFile(
        tuple(_Table(_mapping(table, file, url), file, (url,)).host(url) for url, table in hosts.items()),
        None if server in (None, "") else _Table(document, file, ()).host(server),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file; *words* are those that stand in the file before its keys."""

    values: Mapping[str, object]
    file: ConfigurationFile
    words: tuple[str, ...]

    def host(self, url: object) -> HostTable:
        """Return the host at *url* with this table's settings."""
        if not isinstance(url, str):
            self._fail("server is not a string", "server")
        for key in sorted(set(self.values) - _KEYS):
            log.warning("%s: %.100r is not a key that regfs knows", self.file.path, key)
        scheme, host, path = self._address(url)
        return HostTable(
            scheme,
            host,
            path,
            self._capabilities(),
            Certificates(self._files("ca"), self._client_pair()),
            self._boolean("skip_verify"),
            self._headers(),
        )

    def table(self, key: str) -> Mapping[str, object]:
        """Return the table at *key*, empty where there is none."""
        return _mapping(self.values.get(key, {}), self.file, key)

    def _address(self, url: str) -> tuple[str, str, str]:
        if "@" in url:  # not quoted: there may be a password in it
            self._fail("a URL with a user name in it is not the URL of a host", url)
        try:
            parts = urlsplit(url if "://" in url else f"https://{url}")
            canonical_registry(parts.netloc)  # for its grammar; a Docker Hub alias stays the host that is meant
        except (ValueError, InvalidName):
            self._fail(f"{url[:200]!r} is not the URL of a host", url)
        if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            self._fail(f"{url[:200]!r} is not an http or https URL of a host", url)
        path = posixpath.normpath(f"/{parts.path}").replace("//", "/").rstrip("/")
        if not _PATH.fullmatch(path):
            self._fail(f"the path of {url[:200]!r} has characters that regfs does not send", url)
        if not self._boolean("override_path") and not path.endswith("/v2"):
            path += "/v2"
        return parts.scheme, parts.netloc.lower(), path

    def _capabilities(self) -> frozenset[str] | None:
        if "capabilities" not in self.values:
            return None
        return frozenset(self._strings("capabilities", self.values["capabilities"]))

    def _files(self, key: str) -> tuple[str, ...]:
        return tuple(self._absolute(name) for name in self._strings(key, self.values.get(key, [])))

    def _client_pair(self) -> tuple[str, str | None] | None:
        """Return our certificate and key: "both.pem", ["both.pem"] or [["certificate.pem", "key.pem"]]."""
        client = self.values.get("client", [])
        choices = [client] if isinstance(client, str) else client
        if not isinstance(choices, list):
            self._fail("client is neither a file nor a list of them", "client")
        if not choices:
            return None
        if len(choices) > 1:
            log.warning("%s: of several client certificates the first is used", self.file.path)
        files = self._strings("client", choices[0])
        if not 1 <= len(files) <= 2:
            self._fail("client is not a certificate and a key", "client")
        return self._absolute(files[0]), self._absolute(files[1]) if len(files) == 2 and files[1] else None

    def _headers(self) -> dict[str, str]:
        headers = {}
        for name, value in self.table("header").items():
            text = ", ".join(self._strings("header", value))
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                self._fail(f"header {name[:100]!r} has characters that no header may have", name)
            headers[name] = text
        return headers

    def _boolean(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self._fail(f"{key} is neither true nor false", key)
        return value

    def _strings(self, key: str, value: object) -> list[str]:
        strings = [value] if isinstance(value, str) else value
        if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
            self._fail(f"{key} is neither a string nor a list of strings", key)
        return strings

    def _absolute(self, name: str) -> str:
        return str(self.file.path.parent / name)

    def _fail(self, reason: str, word: str) -> NoReturn:
        self.file.fail(reason, *self.words, *([] if word in self.words else [word]))


def _mapping(value: object, file: ConfigurationFile, key: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        file.fail(f"{key[:200]!r} is not a table", key)
    return value
