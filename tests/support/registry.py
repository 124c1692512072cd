"""Debian's docker-registry, started for a test on a free port with storage of its own.

    with DockerRegistry(tmp_path) as registry:
        Pusher(registry.url).blob("demo/hello", layer)

memory_registry.py says when to take which of the registries for tests.

`authentication` is docker-registry's own `auth` section: `basic_authentication(…)` makes one, and so does
`TokenServer.registry_configuration()`.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import Reserved

_START_TIMEOUT_S = 60.0
_BCRYPT_SALT = "$2y$05$" + "./A" * 7 + "."


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM form: a certificate authority, and what it signed for the server and for a client."""

    authority: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path


def make_certificates(directory: Path, *, host: str = "127.0.0.1") -> Certificates:
    """Return a fresh authority with a certificate for *host* (an IP address) and one for a client."""

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *new_key, "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"
    )
    for name in ("server", "client"):
        openssl("req", *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (directory / f"{name}.ext").write_text(f"subjectAltName=IP:{host}\n")
        signed_by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed_by)
    return Certificates(*(directory / f for f in ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")))


def basic_authentication(directory: Path, user: str, password: str) -> dict[str, object]:
    """Return an `auth` section that lets in *user* alone; bcrypt comes from perl's crypt, which Debian always has."""
    command = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", password, _BCRYPT_SALT]
    hashed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    file = directory / "htpasswd"
    file.write_text(f"{user}:{hashed}\n")
    return {"htpasswd": {"realm": "tests", "path": str(file)}}


def is_installed() -> bool:
    """Tell whether docker-registry can be started here."""
    return shutil.which("docker-registry") is not None


class DockerRegistry:
    """A running docker-registry; *proxy_of* makes it a pull-through cache of another registry's URL."""

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        authentication: Mapping[str, object] | None = None,
        certificates: Certificates | None = None,
        clients_need_certificates: bool = False,
        proxy_of: str | None = None,
    ) -> None:
        self.storage = directory / "registry"
        self.storage.mkdir(parents=True, exist_ok=True)
        self._host = host
        self._directory = directory
        self._certificates = certificates
        self._configuration: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
        }
        if authentication:
            self._configuration["auth"] = authentication
        if proxy_of:
            self._configuration["proxy"] = {"remoteurl": proxy_of}
        self._tls: dict[str, object] = {}
        if certificates:
            self._tls = {"certificate": str(certificates.server_certificate), "key": str(certificates.server_key)}
            if clients_need_certificates:
                self._tls["clientcas"] = [str(certificates.authority)]
        self.address, self._process = self._start()
        self.url = f"{'https' if certificates else 'http'}://{self.address}"

    def _start(self) -> tuple[str, subprocess.Popen[bytes]]:
        for _attempt in range(5):
            self._port = Reserved(self._host)
            port = self._port.number
            address = f"{self._host}:{port}"
            http_section = {"addr": address, "secret": "of the tests"} | ({"tls": self._tls} if self._tls else {})
            file = self._directory / "registry.yml"
            file.write_text(json.dumps(self._configuration | {"http": http_section}))  # JSON is YAML
            with (self._directory / "registry.log").open("ab") as log:
                process = subprocess.Popen(["docker-registry", "serve", file], stdout=log, stderr=log)
            if self._is_listening(port, process):
                return address, process
        raise RuntimeError(f"docker-registry does not start: {(self._directory / 'registry.log').read_text()[-2000:]}")

    def _is_listening(self, port: int, process: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection((self._host, port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return process.poll() is None
        process.kill()
        process.wait()
        return False

    def blob_file(self, digest: str) -> Path:
        """Return the file in which the registry keeps a blob: for tests that damage it."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def stop(self) -> None:
        """Stop the registry and wait until it has gone."""
        self._process.terminate()
        self._process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()
