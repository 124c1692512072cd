"""`regfs refresh`: a push is seen at once, and no process is signalled that is no daemon of the caller's."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from regfs.daemon.self_description import FILE, pid_namespace
from regfs.errors import MountFailure
from regfs.mount.mountpoint import Mounted as MountEntry
from regfs.mount.mountpoint import inside
from regfs.verbs.refresh import _Daemon, _signal
from tests.conftest import MountRegfs
from tests.support.client_rig import ALONE
from tests.support.fault_server import FaultServer
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import Mounted, alone_with, as_user, regfs_command
from tests.support.push import Pusher
from tests.support.registry import DockerRegistry


@pytest.fixture
def mounted(mount_regfs: MountRegfs) -> Mounted:
    return mount_regfs("--offline")


@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_a_push_is_seen_right_after_a_refresh(
    mount_regfs: MountRegfs, docker_registry: DockerRegistry, driver: str
) -> None:
    push = Pusher(docker_registry.url)
    push.image(f"refresh/{driver}", "1", image_of(layer(file("old"))))
    mount = mount_regfs("--driver", driver, "--default-registry", docker_registry.address, "--tag-ttl", "1h")
    repository = mount.path / "refresh" / driver
    assert os.listdir(repository / "1/rootfs") == ["old"]
    assert os.listdir(repository) == ["1"]
    assert not (repository / "2").exists()
    push.image(f"refresh/{driver}", "1", image_of(layer(file("new"))))
    push.image(f"refresh/{driver}", "2", image_of(layer(file("new"))))
    done = mount.run(*regfs_command(), "refresh", mount.path)
    assert done.stdout == f"{mount.path}: tags and listings will be asked for again\n"
    assert os.listdir(repository / "2/rootfs") == ["new"]  # the kernel remembered that it is not there
    assert os.listdir(repository / "1/rootfs") == ["new"]
    assert sorted(os.listdir(repository)) == ["1", "2"]


@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_a_registry_that_is_back_answers_right_after_a_refresh(mount_regfs: MountRegfs, driver: str) -> None:
    application = MemoryRegistry()
    application.add_image("demo/app", "v1")
    with FaultServer(application, host=ALONE) as server:
        address = server.address
        mount = mount_regfs("--driver", driver, "--default-registry", address)
        server.stop()
        for path in ("demo/app", "demo", "other/app/v1"):
            with pytest.raises(OSError) as caught:
                os.listdir(mount.path / path)
            assert caught.value.errno == errno.EHOSTUNREACH
    with FaultServer(application, host=ALONE, port=int(address.rpartition(":")[2])):
        mount.run(*regfs_command(), "refresh", mount.path)
        assert os.listdir(mount.path / "demo/app") == ["v1"]
        assert os.listdir(mount.path / "demo") == ["app"]


def test_a_path_in_a_mount_refreshes_the_mount(mounted: Mounted) -> None:
    done = mounted.run(*regfs_command(), "refresh", mounted.path / "library/debian")
    assert done.stdout == f"{mounted.path}: tags and listings will be asked for again\n"
    assert json.loads((mounted.path / ".regfs" / FILE).read_text())["refreshes_done"] == 1


def test_what_is_no_mount_is_not_refreshed(mounted: Mounted) -> None:
    done = mounted.run(*regfs_command(), "refresh", mounted.home, check=False)
    assert (done.returncode, done.stderr) == (1, f"regfs: no regfs is mounted on {mounted.home}\n")


def test_a_dead_mount_is_not_refreshed_and_the_others_are(mounted: Mounted, mount_regfs: MountRegfs) -> None:
    dead = mount_regfs("--offline")
    dead.die()
    done = mounted.run(*regfs_command(), "refresh", dead.path, mounted.path, check=False)
    assert (done.returncode, done.stderr) == (1, f"regfs: {dead.path}: dead\n")
    assert done.stdout.startswith(f"{mounted.path}: ")
    dead.clean_up()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_mount_of_another_user_is_told_as_such(
    ordinary_user: int | None, mounted: Mounted, mount_regfs: MountRegfs
) -> None:
    theirs = mount_regfs("--offline", uid=ordinary_user)
    denied = mounted.run(*regfs_command(), "refresh", theirs.path, check=False)
    assert (denied.returncode, "mount of another user" in denied.stderr) == (4, True)
    open_to_all = mount_regfs("--offline", "--allow-other")
    denied = theirs.run(*regfs_command(), "refresh", open_to_all.path, check=False)
    assert (denied.returncode, "mount of another user (uid 0)" in denied.stderr) == (4, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_without_a_name_all_mounts_of_ones_own_are_refreshed(
    ordinary_user: int | None, mounted: Mounted, mount_regfs: MountRegfs
) -> None:
    theirs = mount_regfs("--offline", uid=ordinary_user)
    done = mounted.run(*alone_with(theirs), *as_user(theirs.uid), *regfs_command(), "refresh")
    assert done.stdout == f"{theirs.path}: tags and listings will be asked for again\n"
    nothing = mounted.run(*alone_with(theirs), *regfs_command(), "refresh", check=False)
    assert (nothing.returncode, nothing.stderr) == (1, "regfs: no regfs of yours is mounted\n")


def test_a_process_that_is_no_daemon_of_that_mount_gets_no_signal(mounted: Mounted) -> None:
    """The process id that a daemon once said may be another process's by now."""
    ours = {"pid": os.getpid(), "pid_namespace": pid_namespace(), "started": 0.0, "refreshes_begun": 0}
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        daemon = _Daemon(MountEntry(str(mounted.path), "0:1", "fuse.regfs", "docker.io"), ours, None)
        _signal([daemon])
    finally:
        signal.signal(signal.SIGHUP, before)
        os.close(daemon.process)
    assert heard == []
    assert isinstance(daemon.failure, MountFailure)


def test_links_lead_to_a_mount_point_and_no_further(tmp_path: Path) -> None:
    points = {"/mnt/reg", str(tmp_path / "real")}
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/library")
    (tmp_path / "up").symlink_to("../" + tmp_path.name + "/link")
    (tmp_path / "loop").symlink_to("loop")
    assert inside("/mnt/reg", points) == ("/mnt/reg", "")
    assert inside("/mnt/reg/a/b", points) == ("/mnt/reg", "a/b")
    assert inside("/mnt/register", points) is None
    assert inside(str(tmp_path / "up/x"), points) == (str(tmp_path / "real"), "library/x")
    assert inside(str(tmp_path / "loop/x"), points) is None
