"""What is found before a mount, and what is said about it: object, reason, remedy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from regfs import checks
from regfs.errors import MountFailure
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
        program = f"from regfs import checks; checks.FUSE_DEVICE = {str(device)!r}; checks.check_device()"
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
