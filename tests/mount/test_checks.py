"""What is found before a mount, and what is said about it: object, reason, remedy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mounted import Mounted, as_user, mounts_at


def attempt(mount: Mounted) -> subprocess.CompletedProcess[str]:
    """Try to mount, as the user of *mount*."""
    return mount.run(*mount.command[len(as_user(mount.uid)) :], check=False)


def test_a_directory_of_another_user_is_refused_before_anything_is_tried(
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
