"""Logins that regfs stores, as docker login does: in Docker's config.json, or by the helper that it names.

    $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, ~/.docker/config.json      the first that is set
    {"auths": {SERVER: {"auth": base64 of name:password}}}                      where no helper is named
    {"credHelpers": {SERVER: NAME}, "credsStore": NAME}                         docker-credential-NAME keeps the secret

The file is replaced in one step and is readable for its user alone; all else that is in it stays. Used by
verbs/login.py. Sources: docker/cli config/configfile; docker-credential-helpers. Thread rule: one thread; of two logins
at once, the last one stays.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regfs.errors import BadConfiguration
from regfs.process.user import home_directory
from regfs.registry.credentials.files import normal_key
from regfs.registry.credentials.helpers import CredentialHelpers
from regfs.registry.credentials.lookup import server_name


class StoredLogins:
    """The logins in the file that *environment* names, or that its helpers keep."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.path = _path(environment)
        """Where logins are stored, whether the file is there or not."""

    def store(self, registry: str, username: str, secret: str) -> str:
        """Store the login for *registry*; return where: the file, or the helper's program.

        Runs a helper for at most 20 s. Raises BadConfiguration where the file or the helper cannot be used.
        """
        document, server = self._document(), server_name(registry)
        helper = _helper_for(document, registry)
        if helper:
            self._helpers().store(helper, server, username, secret)
            if server in document.setdefault("auths", {}):
                return f"docker-credential-{helper}"
            document["auths"][server] = {}  # docker notes in it which registries a helper has a login for
        else:
            auth = base64.b64encode(f"{username}:{secret}".encode()).decode()
            _remove(document, registry)
            document.setdefault("auths", {})[server] = {"auth": auth}
        self._write(document)
        return f"docker-credential-{helper}" if helper else str(self.path)

    def remove(self, registry: str) -> bool:
        """Remove the login for *registry*; tell whether there was one. Raises as store() does."""
        document = self._document()
        helper = _helper_for(document, registry)
        if helper:
            self._helpers().erase(helper, server_name(registry))
        was_there = _remove(document, registry)
        if was_there:
            self._write(document)
        return was_there or bool(helper)

    def _helpers(self) -> CredentialHelpers:
        return CredentialHelpers(self._environment)

    def _document(self) -> dict[str, Any]:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"{self.path} cannot be read: {error}") from error
        try:
            document = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise BadConfiguration(f"{self.path} is no JSON, and is left as it is: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("auths", {}), dict):
            raise BadConfiguration(f"{self.path} is not a file of logins, and is left as it is")
        return document

    def _write(self, document: dict[str, Any]) -> None:
        target = Path(os.path.realpath(self.path))  # a link to a file that is kept elsewhere stays one
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".config-", dir=target.parent)  # 0600
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump(document, file, indent="\t")
                    file.write("\n")
                os.replace(name, target)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise BadConfiguration(f"{target} cannot be written: {error.strerror}") from error


def _path(environment: Mapping[str, str]) -> Path:
    if only := environment.get("REGISTRY_AUTH_FILE"):
        return Path(only)
    if docker := environment.get("DOCKER_CONFIG"):
        return Path(docker, "config.json")
    home = home_directory(environment)
    if not home:
        raise BadConfiguration("this user has no home directory for a login; name a file with $REGISTRY_AUTH_FILE")
    return Path(home, ".docker", "config.json")


def _helper_for(document: Mapping[str, Any], registry: str) -> str:
    helpers = document.get("credHelpers")
    for key, name in helpers.items() if isinstance(helpers, dict) else ():
        if normal_key(key) == registry and isinstance(name, str):
            return name
    general = document.get("credsStore")
    return general if isinstance(general, str) else ""


def _remove(document: dict[str, Any], registry: str) -> bool:
    auths = document.get("auths", {})
    keys = [key for key in auths if normal_key(key) == registry]
    for key in keys:
        del auths[key]
    return bool(keys)
