"""What one would use instead of regfs: skopeo and umoci, podman, and stargz-store for what is fetched lazily."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tests.bench.measure import run


class Peer(Protocol):
    """A way to get from an image in a registry to a directory that one can change root into."""

    name: str

    def why_not(self) -> str | None:
        """Return why it cannot be measured here, or None."""

    def rootfs(self, registry: str, image: str, directory: Path) -> Path:
        """Return the image's root below the empty *directory*, after all the work that takes."""

    def clean_up(self, directory: Path) -> None:
        """Unmount what rootfs() mounted."""


class SkopeoUmoci:
    """skopeo copy into an OCI layout, umoci unpack."""

    name = "skopeo+umoci"

    def why_not(self) -> str | None:
        absent = [tool for tool in ("skopeo", "umoci") if not shutil.which(tool)]
        return f"{', '.join(absent)} not installed" if absent else None

    def rootfs(self, registry: str, image: str, directory: Path) -> Path:
        layout = directory / "layout"
        run(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry}/{image}", f"oci:{layout}:image"])
        run(["umoci", "unpack", "--image", f"{layout}:image", directory / "bundle"])
        return directory / "bundle/rootfs"

    def clean_up(self, directory: Path) -> None:
        """Nothing is mounted."""


class Podman:
    """podman pull, podman image mount, in a storage of its own."""

    name = "podman"

    def why_not(self) -> str | None:
        if not shutil.which("podman"):
            return "podman not installed"
        probe = subprocess.run(["podman", "info"], capture_output=True, text=True, check=False)
        return None if probe.returncode == 0 else f"podman does not run here: {probe.stderr.strip()[-200:]}"

    def _command(self, directory: Path) -> list[str]:
        return ["podman", "--root", str(directory / "root"), "--runroot", str(directory / "run")]

    def rootfs(self, registry: str, image: str, directory: Path) -> Path:
        self.pull(registry, image, directory)
        return self.mount(registry, image, directory)

    def pull(self, registry: str, image: str, directory: Path) -> None:
        """Fetch the image into the storage in *directory*."""
        run([*self._command(directory), "pull", "-q", "--tls-verify=false", f"{registry}/{image}"])

    def mount(self, registry: str, image: str, directory: Path) -> Path:
        """Return where the image, which is in the storage in *directory*, is mounted now."""
        mount = [*self._command(directory), "image", "mount", f"{registry}/{image}"]
        return Path(subprocess.run(mount, capture_output=True, text=True, check=True).stdout.strip())

    def unmount(self, directory: Path) -> None:
        """Unmount all images of the storage in *directory*."""
        command = [*self._command(directory), "image", "umount", "--all", "--force"]
        subprocess.run(command, capture_output=True, check=False)

    def clean_up(self, directory: Path) -> None:
        self.unmount(directory)
        subprocess.run(["umount", str(directory / "root/overlay")], capture_output=True, check=False)


class PodmanRun:
    """podman run, in a storage of its own, on the machine's network.

    Without limits of its own, which need a right that not every root has; runc runs where crun finds no control groups.
    """

    name = "podman"
    _LIMITS = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")

    def command(self, directory: Path, registry: str, image: str) -> list[str]:
        """Return the command that runs *image*, which it pulls where it is not in *directory*."""
        storage = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]
        runtime = ["--runtime", "runc"] if shutil.which("runc") else []
        call = ["podman", *storage, *runtime, "--cgroup-manager=cgroupfs", "run", "-q", "--rm", "--tls-verify=false"]
        return [*call, *self._LIMITS, f"{registry}/{image}"]

    def clean_up(self, directory: Path) -> None:
        """Unmount podman's storage."""
        subprocess.run(["umount", str(directory / "root/overlay")], capture_output=True, check=False)


class StargzStore:
    """stargz-store, which shows each layer of an eStargz image and fetches what is read; an overlay merges them."""

    name = "stargz-store"
    _MOST_WAIT_S = 30.0
    _MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

    def __init__(self, directory: Path) -> None:
        """Everything is below *directory*, which is empty."""
        self._store, self._merged = directory / "store", directory / "merged"
        self._state = directory / "state"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def why_not(cls) -> str | None:
        """Return why it cannot be measured here, or None."""
        return None if shutil.which(cls.name) else f"{cls.name} not installed"

    def rootfs(self, registry: str, image: str) -> Path:
        """Start it, and return the root of *image*, a manifest's tag on plain http."""
        for each in (self._store, self._merged, self._state):
            each.mkdir()
        self._process = subprocess.Popen([self.name, "-root", self._state, self._store], stderr=subprocess.DEVNULL)
        self._wait_for_mount()
        reference = base64.b64encode(f"{registry}/{image}".encode()).decode()
        layers = [self._store / reference / digest / "diff" for digest in self._layers(registry, image)]
        with ThreadPoolExecutor() as threads:  # as podman does: the tables of contents come at once
            list(threads.map(os.listdir, layers))
        lower = ":".join(str(layer).replace(":", r"\:") for layer in reversed(layers))
        run(["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", self._merged])
        return self._merged

    def _wait_for_mount(self) -> None:
        assert self._process is not None
        until_s = time.monotonic() + self._MOST_WAIT_S
        while not self._store.is_mount():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{self.name} does not mount {self._store}")
            time.sleep(0.002)

    def _layers(self, registry: str, image: str) -> list[str]:
        name, _, tag = image.partition(":")
        asked = urllib.request.Request(
            f"http://{registry}/v2/{name}/manifests/{tag}", headers={"Accept": self._MANIFESTS}
        )
        with urllib.request.urlopen(asked, timeout=self._MOST_WAIT_S) as answer:
            return [layer["digest"] for layer in json.load(answer)["layers"]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for point in (self._merged, self._store):
            subprocess.run(["umount", point], capture_output=True, check=False)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(self._MOST_WAIT_S)


PEERS: tuple[Peer, ...] = (SkopeoUmoci(), Podman())
