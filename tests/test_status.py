"""What `regfs status` tells of mounts, alive, dead or none."""

from __future__ import annotations

import json
import os
import signal

import pytest

from regfs.progress import in_units
from regfs.status import Status
from regfs.version import VERSION
from tests.conftest import MountRegfs
from tests.support.mounted import Mounted, regfs_command, wait_for_exit

FETCHING = {"origin": "ghcr.io/owner/app", "digest": "sha256:" + "ab" * 32, "size": 4 << 20, "received": 1 << 20}


@pytest.fixture
def mounted(mount_regfs: MountRegfs) -> Mounted:
    return mount_regfs("--offline")


def test_a_live_mount_tells_its_version_and_source(mounted: Mounted) -> None:
    done = mounted.run(*regfs_command(), "status", mounted.path)
    assert done.stdout.splitlines()[0] == f"{mounted.path}: docker.io, alive, regfs {VERSION}"


# A mount namespace without the mounts of others: looking into those would keep whoever unmounts them from it.
ALONE = """
for other in $(findmnt --raw --noheadings --output TARGET --types fuse.regfs); do
  [ "$other" = "$0" ] || umount --lazy "$other"
done
exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_without_an_argument_all_mounts_are_shown(mounted: Mounted) -> None:
    alone = ["unshare", "--mount", "sh", "-c", ALONE, mounted.path]
    done = mounted.run(*alone, *regfs_command(), "status")
    assert done.stdout.startswith(f"{mounted.path}: docker.io, alive")


def test_programs_get_json(mounted: Mounted) -> None:
    (told,) = json.loads(mounted.run(*regfs_command(), "status", "--format", "json", mounted.path).stdout)
    assert (told["mountpoint"], told["state"], told["fetching"]) == (str(mounted.path), "alive", [])
    assert isinstance(told["counters"], dict)


def test_a_dead_mount_is_told_as_dead(mounted: Mounted) -> None:
    pids = mounted.processes()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert wait_for_exit(pids) == []
    done = mounted.run(*regfs_command(), "status", mounted.path, check=False)
    assert (done.returncode, done.stdout) == (
        1,
        f"{mounted.path}: docker.io, dead: regfs umount takes it away\n",
    )


def test_what_is_no_mount_is_told(mounted: Mounted) -> None:
    done = mounted.run(*regfs_command(), "status", mounted.home, check=False)
    assert (done.returncode, done.stderr) == (1, f"regfs: no regfs is mounted on {mounted.home}\n")


def test_what_is_being_fetched_is_shown_with_its_size() -> None:
    status = Status("/mnt/reg", "docker.io", "alive", "regfs 1", {"registry.bytes": 1 << 30, "bugs": 0}, [FETCHING])
    assert list(status.lines()) == [
        "/mnt/reg: docker.io, alive, regfs 1",
        "  bytes from registries: 1.0 GiB",
        "  ghcr.io/owner/app sha256:abababababab: 1.0 MiB of 4.0 MiB",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (500 << 20, "500 MiB"), (1 << 60, "1048576 TiB")],
)
def test_sizes_are_shown_for_people(size: int, text: str) -> None:
    assert in_units(size) == text
