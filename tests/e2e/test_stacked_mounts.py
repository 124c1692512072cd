"""Other mounts made of a rootfs: with mapped owners, and overlays on overlays."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, needs_root
from tests.support.idmap import mapped_clone

pytestmark = needs_root

KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
needs_mapped_owners = pytest.mark.skipif(KERNEL < (6, 12), reason="mapped owners need Linux 6.12")


@needs_mapped_owners
def test_a_rootfs_is_mounted_with_mapped_owners_for_a_user_namespace(mount_regfs: MountRegfs, demo: Demo) -> None:
    mount = mount_regfs("--default-registry", demo.address, "--allow-other")
    rootfs = mount.path / "demo/real/v2/rootfs"
    owner = os.stat(rootfs / "etc").st_uid
    clone = mapped_clone(rootfs, 100_000)
    try:
        assert os.stat("etc", dir_fd=clone).st_uid == 100_000 + owner
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=clone)
        assert sorted(os.listdir(directory)) == sorted(os.listdir(rootfs))
        os.close(directory)
    finally:
        os.close(clone)
    assert os.stat(rootfs / "etc").st_uid == owner


@needs_mapped_owners
def test_without_permission_checks_in_the_kernel_a_mount_still_works_and_is_not_mapped(
    mount_regfs: MountRegfs, demo: Demo
) -> None:
    rootfs = mount_regfs("--default-registry", demo.address).path / "demo/real/v2/rootfs"
    assert (rootfs / "etc/os-release").exists()
    with pytest.raises(OSError) as refused:
        mapped_clone(rootfs, 100_000)
    assert refused.value.errno == errno.EINVAL


@contextmanager
def overlay(lower: Path, directory: Path) -> Iterator[Path]:
    """Mount an overlay over *lower* below *directory*. Raises CalledProcessError."""
    upper, work, merged = (directory / name for name in ("upper", "work", "merged"))
    for made in (upper, work, merged):
        made.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True, capture_output=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


def test_without_passthrough_an_overlay_over_an_overlay_over_a_rootfs_is_mounted(
    mount_regfs: MountRegfs, demo: Demo, tmp_path: Path
) -> None:
    mount = mount_regfs("--default-registry", demo.address, "--no-passthrough")
    rootfs = mount.path / "demo/real/v2/rootfs"
    with overlay(rootfs, tmp_path / "one") as first:
        (first / "etc/new").write_text("one")
        with overlay(first, tmp_path / "two") as second:
            assert (second / "etc/new").read_text() == "one"
            assert (second / "etc/os-release").read_bytes() == (rootfs / "etc/os-release").read_bytes()
