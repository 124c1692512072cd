"""Mount options, as mount(2), fusermount3 and libfuse take them."""

from __future__ import annotations

import os

from regfs.mount.options import MountOptions


def test_the_safe_options_are_the_usual_ones() -> None:
    words = MountOptions("docker.io").helper_words().split(",")
    assert words == ["rw", "nosuid", "nodev", "fsname=docker.io", "subtype=regfs"]
    assert not MountOptions("docker.io").flags & os.ST_RDONLY


def test_the_kernel_refuses_writes_by_itself_where_that_is_asked_for() -> None:
    options = MountOptions("docker.io", read_only=True)
    assert options.helper_words().split(",")[0] == "ro"
    assert options.flags & os.ST_RDONLY


def test_sharing_a_mount_turns_the_kernels_permission_checks_on() -> None:
    words = MountOptions("docker.io", allow_other=True).kernel_words(5)
    assert words == f"fd=5,rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other,default_permissions"


def test_a_comma_in_the_source_stays_in_it() -> None:
    assert "fsname=a\\,b\\\\c" in MountOptions("a,b\\c", allow_suid=True, allow_dev=True, noexec=True).helper_words()
