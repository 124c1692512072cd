"""What is found before a mount, and what is said about it: object, reason, remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from regfs.errors import MountFailure
from regfs.mount import checks
from tests.conftest import MountRegfs
from tests.support.mounted import Mounted, as_user, environment_for, mounts_at, regfs_command


def attempt(mount: Mounted) -> subprocess.CompletedProcess[str]:
    """Try to mount, as the user of *mount*."""
    return mount.run(*mount.command[len(as_user(mount.uid)) :], check=False)


def test_a_missing_device_is_told_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FUSE_DEVICE", str(tmp_path / "fuse"))
    with pytest.raises(MountFailure, match="is missing: modprobe fuse; in a container: --device"):
        checks.check_device()


def test_a_device_that_is_closed_to_the_user_is_told_with_its_mode(
    ordinary_user: int | None, tmp_path: Path, needs_fuse: None
) -> None:
    if ordinary_user is None:
        pytest.skip("needs root, to make a device that is closed to others")
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        device = Path(made, "fuse")
        device.touch(mode=0o600)
        program = f"from regfs.mount import checks; checks.FUSE_DEVICE = {str(device)!r}; checks.check_device()"
        done = subprocess.run(
            [*as_user(ordinary_user), sys.executable, "-c", program],
            env=environment_for(tmp_path), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert f"{device} may not be opened (mode 0600, owner 0): chmod 666 {device}, or run as root" in done.stderr


def test_a_directory_of_somebody_else_is_refused_before_anything_is_tried(
    ordinary_user: int | None, tmp_path: Path
) -> None:
    mount = Mounted(tmp_path, options=["--offline"], uid=ordinary_user)
    if ordinary_user is None:
        mount.path.chmod(0o555)
    else:
        os.chown(mount.path, 0, 0)
    done = attempt(mount)
    assert (done.returncode, mounts_at(mount.path)) == (1, [])
    assert "you may not mount there; use a directory of yours" in done.stderr


def test_only_root_may_let_set_id_programs_work(ordinary_user: int | None, tmp_path: Path, needs_fuse: None) -> None:
    mount = Mounted(tmp_path, options=["--offline", "-o", "allow_suid"], uid=ordinary_user)
    done = attempt(mount)
    assert (done.returncode, mounts_at(mount.path)) == (2, []), done.stderr
    assert "allow_suid: only root may mount so" in done.stderr


@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_letting_others_in_needs_a_line_in_fuse_conf(ordinary_user: int | None, tmp_path: Path, driver: str) -> None:
    conf = Path("/etc/fuse.conf")
    if conf.exists() and "\nuser_allow_other" in "\n" + conf.read_text():
        pytest.skip("this system lets users do so")
    mount = Mounted(tmp_path, options=["--offline", "--allow-other", "--driver", driver], uid=ordinary_user)
    done = attempt(mount)
    assert (done.returncode, mounts_at(mount.path)) == (1, [])
    assert "add the line user_allow_other to /etc/fuse.conf, or mount as root" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_libfuse_is_told_with_its_package(tmp_path: Path, needs_fuse: None) -> None:
    mount = Mounted(
        tmp_path, options=["--offline", "--driver", "fusepy"], environment={"FUSE_LIBRARY_PATH": "/no/libfuse.so.2"}
    )
    done = attempt(mount)
    assert (done.returncode, mounts_at(mount.path)) == (1, [])
    assert "apt install libfuse2" in done.stderr
    assert "--driver kernel needs none" in done.stderr


def test_holders_of_a_mount_are_found_by_their_links(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    with subprocess.Popen(["sleep", "60"], cwd=mounted.path / ".regfs") as holder:
        try:
            found = list(checks.holding(str(mounted.path)))
        finally:
            holder.kill()
    assert found == [f"sleep (pid {holder.pid}, working directory)"]
    assert list(checks.holding(str(mounted.path) + "-and-more")) == []


def test_umount_follows_a_link_to_the_mount_point(mount_regfs: MountRegfs) -> None:
    mounted = mount_regfs("--offline")
    link = mounted.home / "link"
    link.symlink_to(mounted.path)
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
@pytest.mark.parametrize("driver", ["kernel", "fusepy"])
def test_root_of_a_container_without_the_capability_is_told_how_to_get_it(
    tmp_path: Path, needs_fuse: None, driver: str
) -> None:
    """fusermount3: mount failed: Operation not permitted."""
    mount = Mounted(tmp_path, options=["--offline", "--driver", driver])
    done = mount.run("setpriv", "--bounding-set=-sys_admin", *mount.command, check=False)
    assert (done.returncode, mounts_at(mount.path)) == (1, [])
    assert "in a container: --cap-add SYS_ADMIN --device /dev/fuse" in done.stderr


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
