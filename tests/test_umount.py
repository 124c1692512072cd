"""`regfs umount`: what it takes away, what it leaves alone, and what it says of a mount that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regfs.cli.candidates import candidates
from regfs.verbs.umount import holding
from tests.conftest import MountRegfs
from tests.support.mounted import as_user, environment_for, mounts_at, regfs_command


def test_holders_of_a_mount_are_found_by_their_links(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    with subprocess.Popen(["sleep", "60"], cwd=mounted.path / ".regfs") as holder:
        try:
            found = list(holding(str(mounted.path)))
        finally:
            holder.kill()
    assert found == [f"sleep (pid {holder.pid}, working directory)"]
    assert list(holding(str(mounted.path) + "-and-more")) == []


def test_umount_follows_a_link_to_the_mount_point(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    link = mounted.home / "link"
    link.symlink_to(mounted.path)
    assert f"{mounted.path} " in candidates(["umount", ""], environment_for(mounted.home))  # as the shell completes it
    mounted.run(*regfs_command(), "umount", link)
    assert mounts_at(mounted.path) == []


def umount_as(uid: int | None, directory: Path, point: Path, *, prepare: str = "") -> subprocess.CompletedProcess[str]:
    """Run `regfs umount --force` as *uid*, in a process that has done *prepare* before."""
    program = f"import sys\n{prepare}\nfrom regfs.cli.main import main\nmain()"
    return subprocess.run(
        [*as_user(uid), sys.executable, "-c", program, "umount", "--force", str(point)],
        env=environment_for(directory), capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip


def test_umount_from_inside_the_mount_is_not_held_up_by_itself(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    done = subprocess.run(
        [*regfs_command(), "umount", "."], cwd=mounted.path, env=environment_for(mounted.home),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, mounts_at(mounted.path)) == (0, []), done.stderr


def test_umount_from_inside_a_busy_mount_names_the_others_alone(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    with subprocess.Popen(["sleep", "60"], cwd=mounted.path) as holder:
        try:
            done = subprocess.run(
                [*regfs_command(), "umount", "."], cwd=mounted.path, env=environment_for(mounted.home),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            holder.kill()
    assert done.returncode == 1
    assert f"is in use by sleep (pid {holder.pid}, working directory); regfs umount --lazy" in done.stderr


def test_entry_not_found_in_mtab_is_told_as_a_mount_of_another_user(
    mount_regfs: MountRegfs, ordinary_user: int | None
) -> None:
    if ordinary_user is None:
        pytest.skip("needs a second user: root")
    mounted = mount_regfs("--offline")
    done = umount_as(ordinary_user, mounted.home, mounted.path)
    assert (done.returncode, done.stderr) == (
        4,
        f"regfs: {mounted.path}: it is a mount of another user (uid {os.getuid()})\n",
    )
    assert (mounted.path / ".regfs/version").exists()


def test_without_etc_mtab_a_mount_is_not_ended_by_force_and_the_remedy_is_told(
    mount_regfs: MountRegfs, ordinary_user: int | None
) -> None:
    """fusermount3: failed to open /etc/mtab: the daemon was dead by then, and its mount stayed."""
    mounted = mount_regfs("--offline", uid=ordinary_user)
    without = "import regfs.mount.mountpoint as mountpoints; mountpoints.MTAB = '/nonexistent/mtab'"
    done = umount_as(ordinary_user, mounted.home, mounted.path, prepare=without)
    assert done.returncode == 1
    assert "as root: ln -s /proc/self/mounts /etc/mtab" in done.stderr
    assert mounted.run("cat", mounted.path / ".regfs/version").stdout.startswith("regfs ")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to do without a capability of root's")
def test_root_without_the_capability_does_not_end_what_it_cannot_unmount(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", *regfs_command(), "umount", "--force", str(mounted.path)],
        env=environment_for(mounted.home), capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 1
    assert "--cap-add SYS_ADMIN" in done.stderr
    assert (mounted.path / ".regfs/version").exists()
