"""Credentials: which user name, password or token goes to which registry.

Used by auth/. The sources; the first that has something for the registry wins (logged, without the secret):

    $DOCKER_AUTH_CONFIG                     JSON in the environment
    $REGISTRY_AUTH_FILE                     where set, nothing below is read
    $DOCKER_CONFIG/config.json              where set
    $XDG_RUNTIME_DIR/containers/auth.json   podman login, skopeo login
    /run/user/UID/containers/auth.json      the same from a session, for a daemon that systemd or cron started
    /run/containers/UID/auth.json           the same from a shell without XDG_RUNTIME_DIR (root by ssh, cron)
    $XDG_CONFIG_HOME/containers/auth.json   or ~/.config/containers/auth.json
    ~/.docker/config.json                   unless $DOCKER_CONFIG is set
    ~/.dockercfg                            before Docker 1.7

The order is that of containers-auth.json(5): a file below /run is of this boot, a login in a home directory may be
years old. Files that the environment names go first. The home directory is that of process/user.py: HOME if it is the
user's own.

Within one source: the host's credential helper, the general one, then `auths`. Files are looked at again whenever they
change, so that `docker login` works without a remount. Nothing is ever written.

Thread rule: any thread. A helper runs in a thread of its own; each thread that needs its answer waits under its own
deadline.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from regfs.model.names import DOCKER_HUB, RepositoryName, canonical_registry
from regfs.process.user import configuration_directory, home_directory
from regfs.registry.credentials.credential import VARIABLE, Credential
from regfs.registry.credentials.files import CredentialFile, CredentialSource, parse_source
from regfs.registry.credentials.helpers import CredentialHelpers

log = logging.getLogger(__name__)

_HUB_SERVER = "https://index.docker.io/v1/"

__all__ = ["Credential", "Credentials"]


class Credentials:
    """Finds credentials in the places that *environment* names.

    *mountpoint* is this daemon's: files and helpers below it are never opened, because it would wait for itself.
    *run* is the system's directory for files that last until the next boot.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        uid: int | None = None,
        run: Path = Path("/run"),
        mountpoint: Path | None = None,
        helpers: CredentialHelpers | None = None,
    ) -> None:
        self._inline = _inline(environment)
        self._files = [
            CredentialFile(path, legacy=path.name == ".dockercfg")
            for path in dict.fromkeys(_paths(environment, os.getuid() if uid is None else uid, run))
            if mountpoint is None or not path.is_relative_to(mountpoint)
        ]
        self._helpers = helpers or CredentialHelpers(environment, mountpoint=mountpoint)
        self._lock = threading.Lock()
        self._known: dict[CredentialFile, CredentialSource | None] = {}
        self._announced: set[tuple[str, str]] = set()

    def for_repository(self, repository: RepositoryName) -> Credential | None:
        """Return the credential for *repository*: that of its longest path prefix by whole segments; None: anonymous.

        May wait for a credential helper: raises WouldBlock, Interrupted and RegistryTimeout.
        Source: containers-auth.json(5).
        """
        segments = [repository.registry, *repository.path.split("/")]
        return self._find(["/".join(segments[:length]) for length in range(len(segments), 0, -1)])

    def for_host(self, host: str) -> Credential | None:
        """Return the credential for the registry or mirror *host* (`host[:port]`), None where there is none.

        May wait as for_repository() does.
        """
        return self._find([canonical_registry(host)])

    @property
    def faults(self) -> list[str]:
        """Why files cannot be read: logins in them are missed."""
        return [file.fault for file in self._files if file.fault]

    def forget(self, registry: str) -> None:
        """Ask helpers again for *registry* the next time: it refused their answer."""
        self._helpers.forget(server_name(canonical_registry(registry)))

    def close(self) -> None:
        """Stop the helpers that run."""
        self._helpers.close()

    def _find(self, keys: Sequence[str]) -> Credential | None:
        """Return what the first source has for *keys*, the most specific first; the last one is the host."""
        for source in self._sources():
            credential = self._find_in(source, keys)
            if credential is not None:
                self._announce(keys[-1], credential)
                return credential
        return None

    def _find_in(self, source: CredentialSource, keys: Sequence[str]) -> Credential | None:
        helper = source.helper_for(keys) or source.general_helper
        if helper:
            credential = self._helpers.credential(helper, server=server_name(keys[-1]))
            if credential is not None:
                return credential
        return source.credential_for(keys)

    def _sources(self) -> list[CredentialSource]:
        """Return the present content of the sources, in order. A file that changed may mean a new login in a helper."""
        now = {file: file.current() for file in self._files}
        with self._lock:
            changed = any(self._known.get(file, source) is not source for file, source in now.items())
            self._known = now
        if changed:
            self._helpers.forget_all()
        return [source for source in (self._inline, *now.values()) if source is not None]

    def _announce(self, host: str, credential: Credential) -> None:
        with self._lock:
            known = (host, credential.source) in self._announced
            self._announced.add((host, credential.source))
        if not known:
            log.info("credentials for %s come from %s", host, credential.source)


def _inline(environment: Mapping[str, str]) -> CredentialSource | None:
    text = environment.get(VARIABLE, "")
    if not text.strip():
        return None
    try:
        return parse_source(text.encode("utf-8", "surrogateescape"), name=VARIABLE)
    except ValueError as error:
        log.warning("%s is not used: %s", VARIABLE, error)
        return None


def _paths(environment: Mapping[str, str], uid: int, run: Path) -> Iterator[Path]:
    """Yield the files to look at, in order. A variable that is empty counts as unset (XDG base directories)."""
    if only := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(only)
        return
    docker, home = environment.get("DOCKER_CONFIG"), home_directory(environment, uid)
    if docker:
        yield Path(docker, "config.json")
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")
    yield run / f"user/{uid}/containers/auth.json"
    yield run / f"containers/{uid}/auth.json"
    if configuration := configuration_directory(environment, uid):
        yield configuration / "containers" / "auth.json"
    if home and not docker:
        yield Path(home, ".docker", "config.json")
    if home:
        yield Path(home, ".dockercfg")


def server_name(registry: str) -> str:
    """Return what helpers call *registry*: Docker Hub has had one name there since 2014."""
    return _HUB_SERVER if registry == DOCKER_HUB else registry
