"""What the workloads share: images, mounts of regfs, and what the same image is without it. Used by all of them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.images import BenchImages
from tests.bench.measure import run, timed
from tests.bench.peers import PEERS, Peer, Podman, SkopeoUmoci
from tests.support.erofs import missing as missing_for_kernel_mount
from tests.support.mounted import Mounted, mounts_at, regfs_command

KERNEL_MOUNT = "regfs mount"
"""The column of what the kernel serves by itself."""
PODMAN, EXT4 = Podman.name, "ext4"
"""The columns of `podman image mount`, and of the image unpacked by umoci on this machine's disk."""


@dataclass(slots=True)
class Bench:
    """The images, the drivers and peers to measure, a scratch directory, and what was mounted and unpacked in it."""

    images: BenchImages
    drivers: tuple[str, ...]
    scratch: Path
    notes: list[str] = field(default_factory=list)
    _unpacked: dict[str, Path] = field(default_factory=dict)
    _mounts: list[Mounted] = field(default_factory=list)
    _pulled: dict[str, Path] = field(default_factory=dict)

    def peers(self) -> list[Peer]:
        """Return the peers that run here; why the others do not is noted once."""
        able = []
        for peer in PEERS:
            if reason := peer.why_not():
                self.leave_out(peer.name, reason)
            else:
                able.append(peer)
        return able

    def columns(self) -> list[str]:
        """Return the columns of a known image that can be measured here; why others cannot is noted once."""
        able = list(self.drivers)
        for column, reason in ((KERNEL_MOUNT, missing_for_kernel_mount()), (PODMAN, Podman().why_not())):
            if reason:
                self.leave_out(column, reason)
            else:
                able.append(column)
        return [*able, EXT4]

    def mounted(self, driver: str, registry: str, *, cache: Path | None = None, options: Sequence[str] = ()) -> Mounted:
        """Return a mount that is not mounted yet, with an empty cache of its own unless *cache* is given."""
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        fixed = ["--driver", driver, "--default-registry", registry, "--cache-size", "40GiB"]
        mount = Mounted(directory, options=[*fixed, *options], cache=cache, preloaded_runs=False)
        self._mounts.append(mount)
        return mount

    @contextmanager
    def rootfs(self, column: str, registry: str, image: str) -> Iterator[Path]:
        """Yield the files of *image*, which is on the disk, as *column* has them: in a fresh mount, if in any."""
        if column == EXT4:
            yield self.on_disk(registry, image)
        elif column == PODMAN:
            storage = self.pulled(registry, image)
            try:
                yield Podman().mount(registry, image, storage)
            finally:
                Podman().unmount(storage)
        elif column == KERNEL_MOUNT:
            point = Path(tempfile.mkdtemp(dir=self.scratch))
            run([*self.kernel_mount_command(registry, image), point])
            try:
                yield point
            finally:
                run(["umount", point])
        else:
            with self.mounted(column, registry, cache=self.warm_cache(column, registry, image)) as mount:
                rootfs = self.path(mount, image) / "rootfs"
                run(["ls", rootfs])
                yield rootfs

    def kernel_mount_command(self, registry: str, image: str) -> list[str]:
        """Return the command that mounts *image*, but for the mount point; all that it needs is in its cache."""
        cache = self.kernel_mount_cache(image)
        command = [*regfs_command(), "mount", "-q", "--cache-dir", str(cache), "--cache-size", "40GiB"]
        command.append(f"{registry}/{image}")
        if not cache.exists():
            point = tempfile.mkdtemp(dir=self.scratch)
            run([*command, point])
            run(["umount", point])
        return command

    def kernel_mount_cache(self, image: str) -> Path:
        """Return the cache directory of kernel_mount_command()."""
        return self.scratch / f"warm-mount-{_as_file_name(image)}"

    def pulled(self, registry: str, image: str) -> Path:
        """Return a storage of podman that has *image*."""
        if image not in self._pulled:
            directory = Path(tempfile.mkdtemp(dir=self.scratch))
            self._pulled[image] = directory
            Podman().pull(registry, image, directory)
        return self._pulled[image]

    def clean_up(self) -> None:
        """Unmount what a workload that broke off has left, and podman's storage."""
        for mount in self._mounts:
            if mounts_at(mount.path) or mount.processes():
                mount.clean_up()
        for directory in self._pulled.values():
            Podman().clean_up(directory)
        for point in self.scratch.glob("*"):
            if "erofs" in mounts_at(point):
                subprocess.run(["umount", point], check=False)

    def path(self, mount: Mounted, image: str) -> Path:
        """Return the image's directory in a mount."""
        return mount.path / image.replace(":", "/")

    def warm_cache(self, driver: str, registry: str, image: str) -> Path:
        """Return a cache directory that has all of *image*."""
        cache = self.scratch / f"warm-{driver}-{_as_file_name(image)}"
        if not cache.exists():
            with self.mounted(driver, registry, cache=cache) as mount:
                run(["find", self.path(mount, image) / "rootfs", "-maxdepth", "1"])
        return cache

    def on_disk(self, registry: str, image: str) -> Path:
        """Return the image unpacked on this machine's disk: the native file system that regfs is compared with."""
        if image not in self._unpacked:
            directory = Path(tempfile.mkdtemp(dir=self.scratch))
            self._unpacked[image] = SkopeoUmoci().rootfs(registry, image, directory)
        return self._unpacked[image]

    @contextmanager
    def fetched(self, peer: Peer, registry: str, image: str) -> Iterator[Callable[[], Path]]:
        """Yield a function that fetches *image* with *peer*; what it made is removed afterwards."""
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            yield lambda: peer.rootfs(registry, image, directory)
        finally:
            peer.clean_up(directory)
            shutil.rmtree(directory, ignore_errors=True)

    def leave_out(self, column: str, reason: str) -> None:
        """Note once why *column* is not measured here."""
        if (note := f"{column} is left out: {reason}") not in self.notes:
            self.notes.append(note)


def mount_and_run(mount: Mounted, *command: str | Path) -> float:
    """Return the seconds from the start of regfs to the end of *command*."""

    def work() -> None:
        mount.mount()
        run(command)

    return timed(work)


def _as_file_name(image: str) -> str:
    return image.replace("/", "_").replace(":", "_")
