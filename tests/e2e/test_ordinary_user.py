"""Mounting without privileges: what works for the owner of the mount, and what stays closed to everybody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.e2e.conftest import DRIVERS, Demo
from tests.support.hello import MESSAGE
from tests.support.mounted import Mounted, mountinfo


@pytest.fixture(scope="module", params=DRIVERS)
def mount(
    request: pytest.FixtureRequest, ordinary_user: int | None, demo: Demo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    """A mount that an ordinary user made."""
    directory = tmp_path_factory.mktemp("ordinary")
    options = ["--driver", request.param, "--default-registry", demo.address]
    with Mounted(directory, options=options, uid=ordinary_user) as made:
        yield made


def test_the_owner_lists_and_reads(mount: Mounted) -> None:
    image = mount.path / "library/hello-world/latest"
    assert mount.run("ls", image / "rootfs").stdout == "hello\n"
    assert mount.run("cat", image / "digest").stdout.startswith("sha256:")


def test_the_owner_reads_files_of_other_users_in_an_image(mount: Mounted) -> None:
    assert mount.run("cat", mount.path / "demo/real/v2/rootfs/etc/shadow").stdout.startswith("root:")


def test_a_user_namespace_lets_the_owner_change_root(mount: Mounted) -> None:
    if mount.run("unshare", "-r", "true", check=False).returncode != 0:
        missing("this system forbids user namespaces")
    done = mount.run("unshare", "-rR", mount.path / "library/hello-world/latest/rootfs", "/hello")
    assert done.stdout.encode() == MESSAGE


def test_the_demo_needs_no_program_that_only_root_has_in_the_path(mount: Mounted) -> None:
    """`make run`: unshare: failed to execute chroot: No such file or directory."""
    if mount.run("unshare", "-r", "true", check=False).returncode != 0:
        missing("this system forbids user namespaces")
    program = (
        "import subprocess, sys; from pathlib import Path; from tests.support.demo import change_root; "
        "subprocess.run(change_root(Path(sys.argv[1])), check=True, env={'PATH': '/usr/local/bin:/usr/bin:/bin'})"
    )
    done = mount.run(sys.executable, "-c", program, mount.path / "library/hello-world/latest/rootfs")
    assert done.stdout.encode() == MESSAGE


def test_setuid_programs_of_an_image_have_no_effect(mount: Mounted) -> None:
    options = next(line for line in mountinfo() if f" {mount.path} " in line).split()[5]
    assert {"nosuid", "nodev"} <= set(options.split(","))


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user: root")
def test_the_mount_is_closed_even_to_root(mount: Mounted) -> None:
    with pytest.raises(PermissionError):
        os.listdir(mount.path)
