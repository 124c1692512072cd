"""What /proc tells of a file system that processes work in: here a tmpfs, for all are told in the same way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.mount import mountpoint as mountpoints
from regfs.mount.in_use import directories_in_use

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")

_PRIVATE = ["unshare", "--mount", "--propagation", "private"]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with the directory `app/v1/rootfs/etc`."""
    path = tmp_path / "file system"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    (path / "app/v1/rootfs/etc").mkdir(parents=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@contextmanager
def running(command: Sequence[str | Path], *, cwd: Path | None = None) -> Iterator[None]:
    """Run *command*, which prints a line once it is where it should be, until the block ends."""
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.communicate()


def in_shell(script: str) -> list[str]:
    return ["sh", "-ec", f"{script}\necho ready\nread -r _ || :"]


def used(path: Path, *, overlays: bool = False) -> set[str]:
    found = directories_in_use(mountpoints.OwnMount.at(str(path)).device, overlays=overlays)
    assert found is not None
    return set(found)


def test_a_file_system_that_nothing_is_in_has_its_mount_alone(mounted: Path) -> None:
    assert used(mounted) == {"/"}
    assert directories_in_use("") == frozenset()


def test_a_working_directory_is_in_use(mounted: Path) -> None:
    with running(in_shell(""), cwd=mounted / "app/v1/rootfs"):
        assert used(mounted) == {"/", "/app/v1/rootfs"}
    assert used(mounted) == {"/"}


def test_a_root_directory_is_in_use(mounted: Path) -> None:
    script = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/etc'); print('ready', flush=True); sys.stdin.read()"
    with running([sys.executable, "-c", script, mounted / "app/v1/rootfs"]):
        assert used(mounted) == {"/", "/app/v1/rootfs", "/app/v1/rootfs/etc"}


def test_a_mount_below_is_in_use_in_whatever_mount_namespace_it_is(mounted: Path) -> None:
    script = f"mount -t tmpfs none '{mounted}/app/v1/rootfs/etc'; cd /"
    with running([*_PRIVATE, *in_shell(script)]):
        assert used(mounted) == {"/", "/app/v1/rootfs/etc"}


def test_a_bind_mount_of_a_part_and_what_is_mounted_on_it_are_in_use(mounted: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    script = f"mount --bind '{mounted}/app/v1/rootfs' {place}; mount -t tmpfs none {place}/etc; cd /"
    with running([*_PRIVATE, *in_shell(script)]):
        assert used(mounted) == {"/", "/app/v1/rootfs", "/app/v1/rootfs/etc"}


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_sandbox_of_bubblewrap_is_in_use(mounted: Path) -> None:
    sandbox = ["bwrap", "--ro-bind", "/", "/", "--bind", str(mounted / "app/v1/rootfs"), "/mnt", "--tmpfs", "/mnt/etc"]
    with running([*sandbox, *in_shell("cd /mnt")]):
        assert used(mounted) == {"/", "/app/v1/rootfs", "/app/v1/rootfs/etc"}


def test_a_mount_of_a_bind_mount_of_the_whole_file_system_is_in_use(mounted: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    script = f"mount --bind '{mounted}' {place}; mount -t tmpfs none {place}/app/v1/rootfs/etc; cd /"
    with running([*_PRIVATE, *in_shell(script)]):
        assert used(mounted) == {"/", "/app/v1/rootfs/etc"}


@pytest.mark.parametrize("name", ["v1", "v1:2", "v1 2"])
def test_what_an_overlay_lies_on_is_in_use_where_it_is_asked_for(mounted: Path, tmp_path: Path, name: str) -> None:
    lower, below, place = mounted / "app" / name, tmp_path / "below", tmp_path / "place"
    for directory in (lower, below, place):
        directory.mkdir(exist_ok=True)
    escaped = "".join(f"\\{letter}" if letter in ":\\" else letter for letter in str(lower))
    # As in a container: the overlay alone is to be seen, and not the file system that it lies on.
    script = f"mount -t overlay none -o 'lowerdir={escaped}:{below}' {place}; umount -l '{mounted}'; cd /"
    with running([*_PRIVATE, *in_shell(script)]):
        assert used(mounted) == {"/"}
        assert used(mounted, overlays=True) == {"/", f"/app/{name}"}


def test_a_working_directory_in_another_mount_namespace_is_in_use(mounted: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with running([*_PRIVATE, *in_shell(f"mount --move '{mounted}' {place}; cd {place}/app/v1")]):
        assert used(mounted) == {"/", "/app/v1"}


def test_other_file_systems_are_not_in_use(mounted: Path, tmp_path: Path) -> None:
    with running(in_shell(""), cwd=tmp_path):
        assert used(mounted) == {"/"}
