"""`regfs mount --idmap`: the owners of files as the user namespace of a container has them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import InvalidOption, MountFailure
from regfs.process.user_namespaces import open_user_namespace
from tests.support.erofs import needs_erofs
from tests.support.image_mounts import Machine

OUTSIDE = 100_000


@pytest.fixture
def container() -> Iterator[int]:
    """A process in a user namespace whose root is the user 100000 outside."""
    with subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"unshared\n")
        process.stdin.flush()
        process.stdout.readline()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(f"0 {OUTSIDE} 65536\n")
        yield process.pid
        process.stdin.close()


@needs_erofs
def test_the_root_of_a_container_owns_what_root_owns_in_the_image(machine: Machine, container: int) -> None:
    os.chmod(machine.point, 0o755)
    machine.mounted("--idmap", str(container), "--writable")
    assert (machine.point / "etc/b").stat().st_uid == OUTSIDE
    program = "stat -c %u:%g etc/b hello && echo more >> etc/b && cat etc/b && stat -c %u:%g etc/b"
    entered = ["nsenter", f"--user=/proc/{container}/ns/user", "--setuid", "0", "--setgid", "0"]
    done = subprocess.run(
        [*entered, "sh", "-c", program], cwd=machine.point, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0:0", "0:0", "above", "more", "0:0"]), done.stderr
    machine.umount()


@needs_erofs
def test_a_map_of_three_numbers_needs_no_container(machine: Machine) -> None:
    machine.mounted("--idmap", f"0:{OUTSIDE}:65536")
    assert (machine.point / "etc/b").stat().st_gid == OUTSIDE
    machine.umount()
    refused = machine.mount("--fuse", "--idmap", "0:1:1")
    assert (refused.returncode, "needs a mount by the kernel" in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("container", InvalidOption, "a process id, the path of a user namespace, or FIRST:OUTSIDE:COUNT"),
        ("4194305", MountFailure, "/proc/4194305/ns/user: No such file"),
        ("/proc/self/ns/user", InvalidOption, "of this process too"),
        ("/proc/self/ns/mnt", InvalidOption, "no user namespace"),
        ("/proc", InvalidOption, "a directory"),
        ("0:100000", InvalidOption, "three numbers"),
        ("0:100000:0", InvalidOption, "three numbers"),
        ("0:4294967295:2", InvalidOption, "largest user id"),
    ],
)
def test_what_is_no_user_namespace_is_refused_by_name(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"--idmap {text}: .*{said}"):
        open_user_namespace(text)
