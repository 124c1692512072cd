"""A user with logins in files and with credential helpers, for the tests of where secrets come from."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from regfs.model.names import RepositoryName
from regfs.registry.credentials.lookup import Credentials

SECRET = "s3cr3t-do-not-show"
NOBODYS_UID = 3_999_999_999


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


class User:
    """A user with a home of their own, and helpers in their PATH."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.bin = directory / "bin"
        self.calls = directory / "calls"
        self.run = directory / "system"
        self.bin.mkdir()
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:{os.defpath}",
            "XDG_RUNTIME_DIR": str(directory / "run"),
        }

    def write(self, path: Path | str, document: object) -> Path:
        """Write *document* (JSON, or bytes as they are) to *path* below the home, replacing what is there."""
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.new")
        fresh.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        fresh.rename(target)
        return target

    def docker(self, **document: Any) -> Path:
        return self.write(".docker/config.json", document)

    def helper(self, name: str, script: str) -> None:
        """Install `docker-credential-`*name*: it notes how it was called, then does *script*."""
        program = self.bin / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\nread -r server || :\necho "$1 $server" >> {self.calls}\n{script}\n')
        program.chmod(0o755)

    def helper_calls(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def credentials(self, **more: Any) -> Credentials:
        return Credentials(self.environment, run=self.run, **more)

    def password(self, name: str) -> str | None:
        """Return the password that a fresh look gives for `host/path`."""
        return password(self.credentials(), name)


def password(credentials: Credentials, name: str) -> str | None:
    host, slash, path = name.partition("/")
    found = credentials.for_repository(RepositoryName(host, path)) if slash else credentials.for_host(host)
    return None if found is None else found.password


def answer(username: str, secret: str) -> str:
    return f"""printf '%s' '{json.dumps({"ServerURL": "x", "Username": username, "Secret": secret})}'"""
