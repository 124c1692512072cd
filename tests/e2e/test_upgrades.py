"""The package is removed or replaced while a mount is used, which has loaded all that it needs of one release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import REPOSITORY_ROOT, environment_for


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A registry with app:1."""
    registry, image = MemoryRegistry(), image_of(layer(file("small", b"small")))
    for content in image.blobs().values():
        registry.add_blob("app", content)
    registry.add_manifest("app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(registry) as served:
        yield served


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A directory with a copy of regfs."""
    shutil.copytree(REPOSITORY_ROOT / "regfs", tmp_path / "package/regfs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "package"


@contextmanager
def mounted_from(package: Path, server: FaultServer, directory: Path) -> Iterator[Path]:
    """Yield a mount of *server* by the regfs in *package*, which no `.pth` file leads past, once all is loaded."""
    point, log = directory / "reg", directory / "log"
    point.mkdir()
    python = ["env", f"PYTHONPATH={package}:{sysconfig.get_path('purelib')}", sys.executable, "-S"]
    options: list[str | Path] = [
        "--debug",
        "--log-file",
        log,
        "--cache-dir",
        directory / "cache",
        "--default-registry",
        server.address,
    ]
    command: list[str | Path] = [*python, "-m", "regfs", *options, point]
    with subprocess.Popen(command, env=environment_for(directory), cwd=directory) as daemon:
        try:
            end = time.monotonic() + 60
            while not log.exists() or "all modules are loaded" not in log.read_text():
                assert time.monotonic() < end
                time.sleep(0.05)
            yield point
        finally:
            daemon.terminate()


def test_a_package_that_is_removed_under_a_mount_cost_it_all_that_was_not_used_before(
    package: Path, server: FaultServer, needs_fuse: None, tmp_path: Path
) -> None:
    """The first image ended as a bug, No module named 'regfs.images.workers.ingest'."""
    with mounted_from(package, server, tmp_path) as mount:
        os.rename(package / "regfs", package / "gone")
        image = mount / "app/1"
        assert (image / "rootfs/small").read_bytes() == b"small"
        for view in ("history", "packages", "wasted"):
            assert (image / view).read_bytes()
        assert os.listdir(image / "oci")
        assert (mount / ".regfs/errors").read_text() == ""
