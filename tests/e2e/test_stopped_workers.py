"""A worker that is stopped while its mount ends goes with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.fault_server import Connection, FaultServer
from tests.support.images import file, image_of, layer_of_tar, tar_of
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted

BIG = layer_of_tar(tar_of(file("big", os.urandom(5_000_000))), compression="none")


def half(connection: Connection) -> bool:
    """Send half of a body, and then nothing."""
    response = connection.right()
    connection.send(response.head() + response.body[: len(response.body) // 2])
    connection.stopped.wait()
    return False


def worker_of(mount: Mounted) -> int:
    """Return the worker of *mount*, once it has one."""
    end = time.monotonic() + 60
    while len(processes := mount.processes()) < 2:
        assert time.monotonic() < end, "no worker was started"
        time.sleep(0.02)
    return processes[1]


def test_a_worker_that_is_stopped_does_not_outlive_its_mount(needs_fuse: None, tmp_path: Path) -> None:
    registry, image = MemoryRegistry(), image_of(BIG)
    for content in image.blobs().values():
        registry.add_blob("app", content)
    registry.add_manifest("app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(registry) as server:
        server.on("GET", str(BIG.digest), half)
        with Mounted(tmp_path, options=["--default-registry", server.address]) as mount:
            reader = subprocess.Popen(["ls", mount.path / "app/1/rootfs/"], stderr=subprocess.DEVNULL)
            worker = worker_of(mount)
            os.kill(worker, signal.SIGSTOP)
            reader.kill()
            reader.wait(60)
        # leaving has insisted that the daemon and its worker are gone
        assert not Path("/proc", str(worker)).exists() or Path("/proc", str(worker), "cmdline").read_bytes() == b""
    assert os.listdir(mount.cache / "passes") == []
