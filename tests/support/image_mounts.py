"""`regfs mount` on a machine: a cache, a mount point, a registry that has demo/app:1, an image of two layers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.conftest import becomes
from tests.support.fault_server import FaultServer
from tests.support.hello import hello_program, host_architecture
from tests.support.images import BuiltImage, device, directory, file, image_of, layer, symlink, whiteout
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import environment_for, mounts_at, regfs_command, run_regfs

LAYERS = (
    layer(directory(".", mode=0o751), file("hello", hello_program(), mode=0o4755), file("etc/a", b"below\n")),
    layer(file("etc/b", b"above\n"), whiteout("etc/a"), symlink("etc/c", "b"), device("null", 1, 3, mode=0o666)),
)


def registry_of(image: BuiltImage) -> MemoryRegistry:
    """Return a registry that has *image* as demo/app:1."""
    application = MemoryRegistry()
    for content in image.blobs().values():
        application.add_blob("demo/app", content)
    application.add_manifest("demo/app", image.manifest, tag="1", media_type=image.media_type)
    return application


def demo_registry() -> MemoryRegistry:
    """Return a registry that has the image of LAYERS."""
    return registry_of(image_of(*LAYERS, architecture=host_architecture()))


class Machine:
    """Runs regfs with a cache below *directory*, which has the mount point `point`."""

    def __init__(self, server: FaultServer, directory: Path) -> None:
        self.image = f"{server.address}/demo/app:1"
        self.directory = directory
        self.cache = directory / "cache"
        self.point = directory / "point"
        self.point.mkdir()

    def regfs(
        self, *words: str | Path, prefix: tuple[str, ...] = (), program: list[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run regfs with these words."""
        if not prefix and program is None:
            return run_regfs(*words, home=self.directory)
        command = [*prefix, *(program or regfs_command()), *map(str, words)]
        return subprocess.run(
            command, env=environment_for(self.directory), cwd=self.directory, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip

    def mount(self, *options: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Mount the image."""
        return self.regfs("mount", "--cache-dir", self.cache, *options, self.image, self.point, prefix=prefix)

    def mounted(self, *options: str | Path) -> None:
        """Mount the image, and insist that it works."""
        done = self.mount(*options)
        assert done.returncode == 0, done.stderr

    def umount(self) -> None:
        """Unmount it by the verb."""
        done = self.regfs("umount", self.point)
        assert done.returncode == 0, done.stderr
        assert mounts_at(self.point) == []

    def remove(self) -> subprocess.CompletedProcess[str]:
        """Evict the image from the cache."""
        return self.regfs("cache", "rm", "--cache-dir", self.cache, self.image)

    def insist_on_eviction(self) -> None:
        """Evict the image; a process that has just copied all mounts (unshare(1)) may hold its files for a moment."""
        becomes(lambda: self.remove().returncode, 0)

    def erofs(self) -> Path:
        """Return the image's file in the cache."""
        (path,) = self.cache.glob("images/*.erofs")
        return path
