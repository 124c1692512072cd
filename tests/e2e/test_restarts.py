"""A mount outlives its daemon: killed, restarted or upgraded, nothing inside notices.

REGFS_SOAK_RESTARTS says how often the daemon below readers is killed and restarted (3).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, needs_root
from tests.support.fault_server import Connection, FaultServer
from tests.support.images import file, image_of, layer
from tests.support.memory_registry import MemoryRegistry
from tests.support.mounted import (
    REPOSITORY_ROOT,
    Mounted,
    environment_for,
    is_holder,
    mounts_at,
    regfs_command,
    run_regfs,
    wait_for_exit,
)
from tests.support.restart_load import RestartLoad, await_holder, daemon_says, kill_at_random, kill_daemon

RESTARTS = int(os.environ.get("REGFS_SOAK_RESTARTS", "3"))
BIG = os.urandom(3 << 20)
LAYER = layer(file("big", BIG))


def until(what: Callable[[], object]) -> None:
    """Wait until *what* returns something true."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def mount(demo: Demo, needs_fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount of the demo's registry, with a big file in it."""
    with Mounted(tmp_path_factory.mktemp("restarts"), options=["--default-registry", demo.address]) as mounted:
        await_holder(mounted.path)
        yield mounted


@pytest.fixture
def rootfs(mount: Mounted) -> Path:
    """The image that programs are in."""
    return mount.path / "demo/real/v2/rootfs"


def restart(mount: Mounted) -> None:
    mount.run(*regfs_command(), "restart", mount.path)


@pytest.mark.parametrize("end", [lambda mount: kill_daemon(mount.path), restart], ids=["killed", "restarted"])
def test_what_a_program_has_open_goes_on(mount: Mounted, rootfs: Path, end: Callable[[Mounted], object]) -> None:
    here = os.open(rootfs / "etc", os.O_RDONLY)
    listing = os.scandir(rootfs / "usr/lib/python/json")
    first = next(listing).name
    with (rootfs / "var/lib/big").open("rb") as big, mmap.mmap(big.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        head = big.read(5000)
        inode = os.fstat(big.fileno()).st_ino
        end(mount)
        assert os.fstat(big.fileno()).st_ino == inode
        content = head + big.read()
        assert content == b"".join(bytes([n % 251]) * 4096 for n in range(1500))
        assert mapped[:] == content
    assert "os-release" in os.listdir(here)
    with open(os.open("os-release", os.O_RDONLY, dir_fd=here), encoding="ascii") as release:
        assert release.read() == 'NAME="a root of the tests"\n'
    assert sorted([first, *(entry.name for entry in listing)]) == sorted(os.listdir(rootfs / "usr/lib/python/json"))
    os.close(here)


def test_a_working_directory_and_its_parents_keep_their_nodes(mount: Mounted, rootfs: Path) -> None:
    script = "import os, sys; a = os.stat('.'); print(flush=True); input(); assert os.stat('.')[:4] == a[:4]; "
    script += "print(os.getcwd(), len(os.listdir('../..')), open('../os-release').read())"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=rootfs / "etc/turns-into-a-directory",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as inside:  # fmt: skip
        assert inside.stdout is not None
        inside.stdout.readline()
        kill_daemon(mount.path)
        said, _ = inside.communicate("\n", timeout=60)
    assert said.startswith(f"{rootfs}/etc/turns-into-a-directory ")
    assert 'NAME="a root of the tests"' in said


@needs_root
def test_readers_and_a_program_in_a_rootfs_notice_no_kill_and_no_restart(mount: Mounted, rootfs: Path) -> None:
    known = {
        str(path.relative_to(rootfs)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(rootfs.rglob("*"))
        if path.is_file() and not path.is_symlink() and "not-utf-8" not in path.name
    }
    program: list[str | Path] = [
        "chroot",
        rootfs,
        "/bin/sh",
        "-c",
        "while /bin/ls -l /usr/lib && /bin/sha256sum /var/lib/big; do :; done",
    ]
    with RestartLoad(rootfs, known, readers=2, program=program) as load:
        for number in range(RESTARTS):
            kill_at_random(mount.path, 1, most_s=0.8, seed=number)
            restart(mount)
    assert load.seen.faults == []
    assert load.seen.files > 0


def test_status_counts_restarts(mount: Mounted) -> None:
    before = daemon_says(mount.path)
    restart(mount)
    (told,) = json.loads(mount.run(*regfs_command(), "status", "--format", "json", mount.path).stdout)
    assert told["restarts"] > int(str(before["restarts"]))  # one of an earlier test may come late
    assert told["crashes"] == before["crashes"]
    shown = mount.run(*regfs_command(), "status", mount.path).stdout
    assert re.search(r"^  restarts: [1-9]", shown, re.MULTILINE)
    assert "handed over" in shown


def test_a_holder_that_is_killed_is_replaced_and_the_mount_outlives_its_daemon_again(mount: Mounted) -> None:
    (holder,) = [pid for pid in mount.processes() if is_holder(pid)]
    os.kill(holder, signal.SIGKILL)
    until(lambda: daemon_says(mount.path)["holder"] not in (holder, 0))
    daemon = kill_daemon(mount.path)
    assert daemon_says(mount.path)["pid"] != daemon


def test_the_workers_of_a_killed_daemon_end(mount: Mounted) -> None:
    old = [pid for pid in mount.processes() if not is_holder(pid)]
    kill_daemon(mount.path)
    assert wait_for_exit(old) == []


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A registry with app:1."""
    registry, image = MemoryRegistry(), image_of(LAYER)
    for content in image.blobs().values():
        registry.add_blob("app", content)
    registry.add_manifest("app", image.manifest, tag="1", media_type=image.media_type)
    with FaultServer(registry) as served:
        yield served


@pytest.mark.parametrize("asked", [False, True], ids=["killed", "restarted"])
def test_a_read_that_waits_for_the_registry_is_answered_by_the_next_daemon(
    server: FaultServer, mount_regfs: MountRegfs, asked: bool
) -> None:
    mount = mount_regfs("--default-registry", server.address)
    await_holder(mount.path)
    held = []

    def hold(connection: Connection) -> bool:
        held.append(connection)
        response = connection.right()
        connection.send(response.head() + response.body[:1000])
        connection.stopped.wait(0.5 if asked else 100)
        if asked:
            connection.send(response.body[1000:])
        return False

    server.on("GET", f"/blobs/{LAYER.digest}", hold, times=1)
    with subprocess.Popen(["cat", mount.path / "app/1/rootfs/big"], stdout=subprocess.PIPE) as reader:
        until(lambda: held)
        if asked:
            restart(mount)
        else:
            kill_daemon(mount.path)
        assert reader.communicate(timeout=60)[0] == BIG
    assert mount.errors() == ""


def test_a_next_daemon_that_cannot_start_leaves_the_mount_to_the_old_one(
    mount_regfs: MountRegfs, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    mount = mount_regfs("--offline", "--policy", str(policy))
    await_holder(mount.path)
    policy.write_text("{")
    done = mount.run(*regfs_command(), "restart", mount.path, check=False)
    assert done.returncode == 1
    assert "the daemon goes on: " in done.stderr
    assert str(policy) in done.stderr
    assert "the last restart failed: " in mount.run(*regfs_command(), "status", mount.path).stdout
    policy.write_text('{"default": [{"type": "reject"}]}')
    restart(mount)
    assert "the last restart failed: " not in mount.run(*regfs_command(), "status", mount.path).stdout


def test_a_restart_says_why_the_upgraded_package_cannot_be_loaded(mount_regfs: MountRegfs, tmp_path: Path) -> None:
    early = tmp_path / "early"
    early.mkdir()
    environment = {"PYTHONPATH": f"{early}:{REPOSITORY_ROOT}"}
    mount = mount_regfs("--offline", environment=environment, preloaded_runs=False)
    await_holder(mount.path)
    (early / "logging.py").write_text("raise ImportError('broken by the upgrade')")
    done = run_regfs("restart", mount.path, home=mount.home)
    assert done.returncode == 1
    assert "the next daemon cannot be loaded: ImportError: broken by the upgrade" in done.stderr
    (early / "logging.py").unlink()
    restart(mount)


@pytest.mark.parametrize("options", [["--no-restart"], ["--driver", "fusepy"]], ids=["--no-restart", "fusepy"])
def test_a_mount_that_is_to_end_with_its_daemon_does(mount_regfs: MountRegfs, options: list[str]) -> None:
    mount = mount_regfs("--offline", *options)
    done = mount.run(*regfs_command(), "restart", mount.path, check=False)
    assert done.returncode == 7
    assert "no process holds the mount" in done.stderr
    mount.die()
    assert mounts_at(mount.path) == ["fuse.regfs"]
    mount.clean_up()


def test_an_ordinary_user_s_mount_outlives_its_daemon_too(
    ordinary_user: int | None, mount_regfs: MountRegfs, demo: Demo
) -> None:
    mount = mount_regfs("--default-registry", demo.address, uid=ordinary_user)
    read: list[str | Path] = ["cat", mount.path / "demo/real/v1/rootfs/etc/os-release"]
    assert mount.run(*read).stdout
    until(lambda: any(map(is_holder, mount.processes())))
    daemon = mount.daemon
    os.kill(daemon, signal.SIGKILL)
    assert mount.run(*read).stdout == 'NAME="a root of the tests"\n'
    mount.run(*regfs_command(), "restart", mount.path)
    assert mount.run(*read).stdout == 'NAME="a root of the tests"\n'


def test_the_root_of_a_mount_of_one_image_stays_what_it_is(
    needs_fuse: None, server: FaultServer, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    one.mkdir()
    cache = ["--cache-dir", str(tmp_path / "cache"), "--default-registry", server.address]
    run = [*regfs_command(), "mount", "--fuse", *cache, "app:1", str(one)]
    subprocess.run(run, check=True, capture_output=True)
    try:
        await_holder(one)
        inside = os.open(one, os.O_RDONLY)
        inode = os.fstat(inside).st_ino
        kill_daemon(one)
        assert (one / "big").read_bytes() == BIG
        assert (os.fstat(inside).st_ino, os.listdir(inside)) == (inode, ["big"])
        os.close(inside)
    finally:
        subprocess.run([*regfs_command(), "umount", "--lazy", str(one)], check=True, capture_output=True)


def test_restarts_at_once_are_one_and_all_are_told_the_daemon_that_serves(mount: Mounted) -> None:
    before = int(str(daemon_says(mount.path)["restarts"]))
    restart_it = [*regfs_command(), "restart", str(mount.path)]
    environment = environment_for(mount.home)
    both = [subprocess.Popen(restart_it, env=environment, cwd="/", stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = set()
    for each in both:
        said, _ = each.communicate(timeout=150)
        assert each.returncode == 0
        assert said.startswith(f"{mount.path}: process ")
        told.add(said.split()[-4])
    after = daemon_says(mount.path)
    assert str(after["pid"]) in told
    assert len(told) <= int(str(after["restarts"])) - before  # two where the second verb starts that late


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3])
def test_a_mount_that_is_unmounted_during_a_hand_over_ends_with_all_its_processes(
    mount_regfs: MountRegfs, after_s: float
) -> None:
    mount = mount_regfs("--offline")
    await_holder(mount.path)
    holder = daemon_says(mount.path)["holder"]
    assert isinstance(holder, int)
    os.kill(holder, signal.SIGRTMIN)
    time.sleep(after_s)  # any instant will do
    mount.unmount()


def test_a_cache_that_is_deleted_and_another_put_in_its_place_costs_the_next_daemon_nothing(
    server: FaultServer, mount_regfs: MountRegfs, tmp_path: Path
) -> None:
    mount = mount_regfs("--default-registry", server.address)
    await_holder(mount.path)
    with (mount.path / "app/1/rootfs/big").open("rb") as big:
        head = big.read(1000)
        mount.cache.rename(tmp_path / "elsewhere")
        (tmp_path / "another").mkdir(mode=0o700)
        mount.cache.symlink_to(tmp_path / "another")
        kill_daemon(mount.path)
        assert head + big.read() == BIG
    assert mount.errors() == ""
