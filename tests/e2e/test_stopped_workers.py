"""A worker that is stopped while its mount ends goes with it, and so does the fork server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_server import Connection, FaultServer
from tests.support.images import file, image_of, layer_of_tar, tar_of
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted, is_holder, wait_for_exit

BIG = layer_of_tar(tar_of(file("big", os.urandom(5_000_000))), compression="none")


def half(connection: Connection) -> bool:
    """Send half of a body, and then nothing."""
    response = connection.right()
    connection.send(response.head() + response.body[: len(response.body) // 2])
    connection.stopped.wait()
    return False


def workers_of(mount: Mounted) -> list[int]:
    """Return the fork server of *mount* and its worker, once there are both."""
    end = time.monotonic() + 60
    while len(processes := [pid for pid in mount.processes() if not is_holder(pid)]) < 3:
        assert time.monotonic() < end, "no worker was started"
        time.sleep(0.02)
    return processes[1:]


def has_ended(process: int) -> bool:
    """Tell whether *process* is gone, or a zombie that an idle reaper leaves."""
    try:
        return Path("/proc", str(process), "cmdline").read_bytes() == b""
    except FileNotFoundError:
        return True


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A registry with app:1, which sends half of its layer."""
    registry, image = MemoryRegistry(), image_of(BIG)
    for content in image.blobs().values():
        registry.add_blob("app", content)
    registry.add_manifest("app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(registry) as served:
        served.on("GET", str(BIG.digest), half)
        yield served


def stopped_workers(mount: Mounted) -> list[int]:
    """Return fork server and worker of *mount*, which are stopped in the middle of a layer."""
    reader = subprocess.Popen(["ls", mount.path / "app/1/rootfs/"], stderr=subprocess.DEVNULL)
    try:
        workers = workers_of(mount)
        end = time.monotonic() + 60
        while not list(mount.cache.glob("ingests/*/*")):  # it has told the kernel by then what to do at our end
            assert time.monotonic() < end, "the worker writes nothing"
            time.sleep(0.02)
        for process in workers:
            os.kill(process, signal.SIGSTOP)
    finally:
        reader.kill()
    reader.wait(60)
    return workers


def test_a_worker_that_is_stopped_does_not_outlive_its_mount(
    needs_fuse: None, server: FaultServer, tmp_path: Path
) -> None:
    with Mounted(tmp_path, options=["--default-registry", server.address]) as mount:
        workers = stopped_workers(mount)
    # leaving has insisted that the daemon and its worker are gone
    assert all(map(has_ended, workers))
    assert os.listdir(mount.cache / "ingests") == []


def test_a_worker_that_is_stopped_does_not_outlive_a_daemon_that_is_killed(
    needs_fuse: None, server: FaultServer, tmp_path: Path
) -> None:
    with Mounted(tmp_path, options=["--default-registry", server.address]) as mount:
        workers = stopped_workers(mount)
        os.kill(mount.daemon, signal.SIGKILL)
        assert wait_for_exit(workers) == []
