"""Files of credentials: Docker's config.json, containers' auth.json, the old ~/.dockercfg.

Used by lookup.py. A bad entry costs that entry alone. While a file is being rewritten, its last good reading stays in
use. Sources: docker/cli config/configfile/file.go; containers-auth.json(5); containers/image
pkg/docker/config. Thread rule: any thread.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regfs.errors import InvalidName
from regfs.model.names import canonical_registry
from regfs.process.regular_files import read_regular_file
from regfs.registry.credentials.credential import Credential

log = logging.getLogger(__name__)

_FILE_LIMIT = 4 * 1024 * 1024


class CredentialSource(NamedTuple):
    """What one file says. Keys are `host[:port][/path]` as written (*exact*) and in their normal form (*normal*)."""

    exact: Mapping[str, Credential]
    normal: Mapping[str, Credential]
    helpers: Mapping[str, str]
    general_helper: str

    def credential_for(self, keys: Sequence[str]) -> Credential | None:
        """Return the credential of the first of *keys* that has one: as written first, then in normal form."""
        for written in (self.exact, self.normal):
            for key in keys:
                if key in written:
                    return written[key]
        return None

    def helper_for(self, keys: Sequence[str]) -> str:
        """Return the name of the helper for the first of *keys* that has one of its own, empty where none has."""
        return next((self.helpers[key] for key in keys if key in self.helpers), "")


class CredentialFile:
    """A file that is read again whenever it has changed."""

    def __init__(self, path: Path, *, legacy: bool) -> None:
        self._path = path
        self._legacy = legacy
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._source: CredentialSource | None = None
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why the file cannot be read, empty if it can: its logins may be missed."""
        with self._lock:
            return self._fault

    def current(self) -> CredentialSource | None:
        """Return the file's present content, None if there is no file or it could never be read.

        A file that cannot be parsed (a login is being written) keeps its last good reading; one warning is logged.
        """
        try:
            found = os.stat(self._path)
        except OSError as error:
            self._forget(error)
            return None
        signature = (found.st_mtime_ns, found.st_ino, found.st_size)
        with self._lock:
            if signature != self._seen:
                self._seen = signature
                self._load()
            return self._source

    def _load(self) -> None:
        try:
            self._source = parse_source(_read(self._path), name=str(self._path), legacy=self._legacy)
            self._fault = ""
        except (OSError, ValueError) as error:
            kept = "its last good content stays in use" if self._source else "it is not used"
            reason = getattr(error, "strerror", None) or error
            self._fault = f"{self._path} cannot be read, {kept}: {reason}"
            log.warning("%s", self._fault)

    def _forget(self, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            log.debug("%s cannot be looked at: %s", self._path, error)
        with self._lock:
            self._seen = self._source = None
            self._fault = ""


def parse_source(content: bytes, *, name: str, legacy: bool = False) -> CredentialSource:
    """Return the logins and helpers in *content*; *name* is the file's. In a *legacy* file the whole object is `auths`.

    Entries that make no sense are left out with a warning that does not quote them. Raises ValueError if the content is
    not a JSON object.
    """
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON (line {error.lineno}: {error.msg})") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind of error for any fault
    auths = document if legacy and "auths" not in document else document.get("auths")
    exact = _entries(auths, name)
    helpers = _texts(document.get("credHelpers"))
    general = document.get("credsStore")
    return CredentialSource(
        exact,
        # Of two spellings of one key the first wins.
        {normal_key(key): credential for key, credential in reversed(exact.items())},
        {**{normal_key(key): helper for key, helper in helpers.items()}, **helpers},
        general if isinstance(general, str) else "",
    )


def normal_key(key: str) -> str:
    """Return *key* as `host[:port][/path]`: `https://host/v1/` is `host`, and Docker Hub has one name.

    Only whole path segments are ever compared with it: a prefix of a string would give the secret of
    registry.example.com to registry.example.com.evil.net.
    """
    scheme, _, rest = key.partition("://")
    is_url = scheme in ("http", "https")
    host, _, path = (rest if is_url else key).partition("/")
    try:
        host = canonical_registry(host)
    except InvalidName:
        return key
    path = path.rstrip("/")
    return host if is_url or path in ("", "v1", "v2") else f"{host}/{path}"


def _entries(auths: object, name: str) -> dict[str, Credential]:
    entries: dict[str, Credential] = {}
    if not isinstance(auths, dict):
        return entries
    for key, entry in auths.items():
        try:
            credential = _credential(entry, name)
        except ValueError as error:
            log.warning("%s: the entry for %.100r is not used: %s", name, key, error)
        else:
            if credential is not None:
                entries[key] = credential
    return entries


def _credential(entry: object, name: str) -> Credential | None:
    """Return the credential of one entry, None where it is empty: it then only marks that a helper has it."""
    if not isinstance(entry, dict):
        raise ValueError("it is not an object")  # noqa: TRY004
    fields = _texts(entry)
    username, password = fields.get("username", ""), fields.get("password", "")
    if fields.get("auth"):
        username, password = _decoded(fields["auth"])
    identity_token, registry_token = fields.get("identitytoken") or None, fields.get("registrytoken") or None
    if not (username or password or identity_token or registry_token):
        return None
    if identity_token or registry_token:
        return Credential(username, password, identity_token, registry_token, source=name)
    return Credential.made_of(username, password, source=name)


def _decoded(auth: str) -> tuple[str, str]:
    """Return the name and the password in *auth*: split at the first colon, for passwords may have more."""
    try:
        text = base64.b64decode("".join(auth.split()), validate=True).decode("utf-8")
    except ValueError:
        raise ValueError("its auth is not base64 of UTF-8") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise ValueError("its auth has no colon")
    return username, password.rstrip("\0")


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}


def _read(path: Path) -> bytes:
    content = read_regular_file(path, _FILE_LIMIT)
    if len(content) > _FILE_LIMIT:
        raise ValueError(f"it has more than {_FILE_LIMIT} bytes")
    return content
