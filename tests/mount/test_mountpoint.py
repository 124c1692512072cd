"""Mount points: which are refused, and how they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints


def test_a_missing_mount_point_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MountFailure, match=r"does not exist; create it: mkdir .*/none"):
        mountpoints.check(str(tmp_path / "none"))


def test_a_file_is_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountFailure, match="not a directory"):
        mountpoints.check(str(tmp_path / "file"))


def test_the_root_directory_is_no_mount_point_because_no_path_would_lead_to_the_mount() -> None:
    with pytest.raises(MountFailure, match="nothing that is mounted on / could be seen"):
        mountpoints.check("/")


def test_unmounting_what_is_not_mounted_says_so(tmp_path: Path) -> None:
    with pytest.raises(MountFailure, match="nothing is mounted there"):
        mountpoints.unmount(str(tmp_path))


def test_a_mount_is_found_through_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert mountpoints.resolved(str(tmp_path / "link")) == str(tmp_path)
