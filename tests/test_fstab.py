"""mount(8) with a line of /etc/fstab: the README's own, and the type `regfs` too.

mount(8) and mount.fuse(8) look for programs in the system's directories only, so that each test has a mount namespace
in which those have regfs in them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regfs import __version__
from tests.conftest import missing
from tests.support.erofs import missing as missing_for_erofs
from tests.support.fault_server import FaultServer
from tests.support.image_mounts import demo_registry
from tests.support.mounted import REPOSITORY_ROOT, environment_for, processes_naming, wait_for_exit

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) with a file of its own is for root")

PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(REPOSITORY_ROOT)!r})
from regfs import cli
cli.{{function}}()
"""
NAMESPACE = """
set -e
system=$(readlink -f /sbin)
mount --bind "$system" system
ln -s "$PWD"/system/* sbin/ 2>/dev/null || true  # a mount.regfs of this machine stays out
mount --bind sbin "$system"
mount --bind bin /usr/local/bin
mount --bind cache /var/cache
mount -T fstab "$PWD/mnt"
cat mnt/.regfs/version
grep -F " $PWD/mnt " /proc/self/mountinfo
umount "$PWD/mnt"
"""


IMAGES_NAMESPACE = """
set -e
system=$(readlink -f /sbin)
mount --bind "$system" system
ln -s "$PWD"/system/* sbin/ 2>/dev/null || true  # a mount.regfs of this machine stays out
mount --bind sbin "$system"
mount --bind bin /usr/local/bin
mount -a -T fstab
mount -a -T fstab
for name in kernel fuse helper; do
    cat "$name/etc/b"
    findmnt -no FSTYPE,SOURCE,OPTIONS "$PWD/$name"
    umount "$PWD/$name"
done
"""


def line_of_the_readme() -> str:
    """Return the line for /etc/fstab that the README gives."""
    (line,) = re.findall(r"^ +(\S+ /mnt/reg regfs .*)$", (REPOSITORY_ROOT / "README.md").read_text(), re.M)
    return str(line)


def needs_mount_namespaces() -> None:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this system allows no mount namespaces")


@pytest.mark.parametrize(("kind", "program"), [("fuse.regfs", "bin/regfs"), ("regfs", "sbin/mount.regfs")])
def test_the_line_of_the_readme_mounts(tmp_path: Path, needs_fuse: None, kind: str, program: str) -> None:
    needs_mount_namespaces()
    if kind == "fuse.regfs" and shutil.which("mount.fuse", path="/sbin") is None:
        missing("mount.fuse is not installed (apt-get install fuse3)")
    for name in ("bin", "sbin", "system", "cache", "mnt"):
        (tmp_path / name).mkdir()
    function = "main" if kind == "fuse.regfs" else "mount_main"
    (tmp_path / program).write_text(PROGRAM.format(function=function))
    (tmp_path / program).chmod(0o755)
    line = line_of_the_readme().replace("/mnt/reg", str(tmp_path / "mnt")).replace(" regfs ", f" {kind} ")
    (tmp_path / "fstab").write_text(f"{line}\n")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", NAMESPACE],
        cwd=tmp_path, env=environment_for(tmp_path), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"docker.io is mounted at {tmp_path}/mnt\nregfs {__version__}\n" in done.stdout
    (shown,) = (line for line in done.stdout.splitlines() if " - " in line)
    before, _, after = shown.partition(" - ")
    assert {"ro", "nosuid", "nodev"} <= set(before.split()[5].split(","))
    assert after.split()[:2] == ["fuse.regfs", "docker.io"]
    assert "allow_other" in after.split()[2].split(",")
    assert wait_for_exit(processes_naming(f"{tmp_path}/mnt\0")) == []


def test_lines_with_an_image_mount_it_by_the_kernel_and_by_fuse(tmp_path: Path, needs_fuse: None) -> None:
    needs_mount_namespaces()
    for name in ("bin", "sbin", "system", "cache", "kernel", "fuse", "helper"):
        (tmp_path / name).mkdir()
    for program, function in (("bin/regfs", "main"), ("sbin/mount.regfs", "mount_main")):
        (tmp_path / program).write_text(PROGRAM.format(function=function))
        (tmp_path / program).chmod(0o755)
    by_kernel = "fuse," if missing_for_erofs() else ""
    with FaultServer(demo_registry()) as server:
        image = f"regfs#{server.address}/demo/app:1"
        (tmp_path / "fstab").write_text(
            f"{image} {tmp_path}/kernel regfs {by_kernel}ro,_netdev,noexec,cache_dir={tmp_path}/cache 0 0\n"
            f"{image} {tmp_path}/fuse regfs fuse,ro,allow_suid,cache_dir={tmp_path}/cache 0 0\n"
            f"{image} {tmp_path}/helper fuse.regfs fuse,ro,cache_dir={tmp_path}/cache 0 0\n"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", IMAGES_NAMESPACE],
            cwd=tmp_path, env=environment_for(tmp_path), capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("above\n") == 3
    assert done.stdout.count(" is mounted at ") == 3, "`mount -a` mounted again what was mounted"
    kernel, fuse, helper = (line.split() for line in done.stdout.splitlines() if line.split()[1:2] == [image])
    assert [line[0] for line in (kernel, fuse, helper)] == [
        "fuse.regfs" if by_kernel else "erofs", "fuse.regfs", "fuse.regfs"
    ]  # fmt: skip
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(kernel[2].split(","))
    assert "nosuid" not in fuse[2].split(",")
    assert {"nosuid", "nodev"} <= set(helper[2].split(","))
    assert wait_for_exit(processes_naming(f"{tmp_path}/fuse\0")) == []
