"""hosts.toml: containerd's file that tells where a registry is asked instead of, or before, its own host.

Used by hosts.py alone. An example, /etc/containerd/certs.d/docker.io/hosts.toml:

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
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from regfs.errors import InvalidName, InvalidOption
from regfs.model.names import canonical_registry
from regfs.registry.certificates import Certificates

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

    Raises InvalidOption.
    """
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise InvalidOption(f"{path} is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise InvalidOption(f"{path} is not TOML: {error}") from None
    hosts = _Table(document, path).table("host")
    server = document.get("server")
    return HostsFile(
        tuple(_Table(_mapping(table, path, url), path).host(url) for url, table in hosts.items()),
        None if server in (None, "") else _Table(document, path).host(server),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    values: Mapping[str, object]
    path: Path

    def host(self, url: object) -> HostTable:
        """Return the host at *url* with this table's settings."""
        if not isinstance(url, str):
            self._fail("server is not a string")
        for key in sorted(set(self.values) - _KEYS):
            log.warning("%s: %.100r is not a key that regfs knows", self.path, key)
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
        return _mapping(self.values.get(key, {}), self.path, key)

    def _address(self, url: str) -> tuple[str, str, str]:
        try:
            parts = urlsplit(url if "://" in url else f"https://{url}")
            canonical_registry(parts.netloc)  # for its grammar; a Docker Hub alias stays the host that is meant
        except (ValueError, InvalidName):
            self._fail(f"{url[:200]!r} is not the URL of a host")
        if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            self._fail(f"{url[:200]!r} is not an http or https URL of a host")
        path = posixpath.normpath(f"/{parts.path}").replace("//", "/").rstrip("/")
        if not _PATH.fullmatch(path):
            self._fail(f"the path of {url[:200]!r} has characters that regfs does not send")
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
            self._fail("client is neither a file nor a list of them")
        if not choices:
            return None
        if len(choices) > 1:
            log.warning("%s: of several client certificates the first is used", self.path)
        files = self._strings("client", choices[0])
        if not 1 <= len(files) <= 2:
            self._fail("client is not a certificate and a key")
        return self._absolute(files[0]), self._absolute(files[1]) if len(files) == 2 and files[1] else None

    def _headers(self) -> dict[str, str]:
        headers = {}
        for name, value in self.table("header").items():
            text = ", ".join(self._strings("header", value))
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                self._fail(f"header {name[:100]!r} has characters that no header may have")
            headers[name] = text
        return headers

    def _boolean(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self._fail(f"{key} is neither true nor false")
        return value

    def _strings(self, key: str, value: object) -> list[str]:
        strings = [value] if isinstance(value, str) else value
        if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
            self._fail(f"{key} is neither a string nor a list of strings")
        return strings

    def _absolute(self, name: str) -> str:
        return str(self.path.parent / name)

    def _fail(self, reason: str) -> NoReturn:
        raise InvalidOption(f"{self.path}: {reason}")


def _mapping(value: object, path: Path, key: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidOption(f"{path}: {key[:200]!r} is not a table")
    return value
