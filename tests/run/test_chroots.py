"""`regfs run` in a plain chroot, whose root directory is no mount point: the message says why it fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.run.runner import PATIENCE_S, Runner
from tests.support.mounted import as_user, environment_for, regfs_command

_ORDINARY = 65534
# A directory with all of the machine below it, and chroot into that.
_PLAIN_CHROOT = """
cd "$1"; shift
for each in /*; do
    if [ -L "$each" ]; then cp -P "$each" .
    elif [ -d "$each" ]; then mkdir ".$each"; mount --rbind "$each" ".$each"
    fi
done
exec chroot . "$@"
"""


def in_a_chroot(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    directory.mkdir()
    return subprocess.run(
        ["unshare", "--mount", "bash", "-ec", _PLAIN_CHROOT, "chroot", str(directory), *command],
        env=environment_for(directory), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def test_in_a_plain_chroot_root_is_told_what_to_mount(root: Runner, tmp_path: Path) -> None:
    """It said "[Errno 22] Invalid argument"."""
    done = in_a_chroot(tmp_path / "new", *root.command("--", "id"))
    assert done.returncode == 125
    assert "mount --bind DIR DIR" in done.stderr


def test_in_a_plain_chroot_an_ordinary_user_is_told_what_else_there_is(root: Runner, tmp_path: Path) -> None:
    """It said that a seccomp filter or security module forbids it, and regfs doctor that user namespaces are off."""
    done = in_a_chroot(tmp_path / "new", *as_user(_ORDINARY), *root.command("--", "id"))
    assert done.returncode == 125
    assert "in a chroot the kernel allows no user namespace" in done.stderr
    said = in_a_chroot(tmp_path / "doctor", *as_user(_ORDINARY), *regfs_command(), "doctor", "--offline").stdout
    (line,) = (line for line in said.splitlines() if "as an ordinary user" in line)
    assert "in a chroot the kernel allows no user namespace" in line
