"""rm(1) in `.regfs/cache/` evicts, for the user who mounts; all else of a mount is read-only."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NOBODY, MountRegfs
from tests.e2e.conftest import DRIVERS, Demo, becomes, needs_root
from tests.support.erofs import missing as missing_for_erofs
from tests.support.mounted import Mounted, as_user, mountinfo, regfs_command
from tests.support.restart_load import await_holder, kill_daemon


@pytest.fixture(params=DRIVERS)
def users_mount(
    request: pytest.FixtureRequest, ordinary_user: int | None, demo: Demo, tmp_path: Path
) -> Iterator[Mounted]:
    """A mount that an ordinary user made."""
    options = ["--driver", request.param, "--default-registry", demo.address]
    with Mounted(tmp_path, options=options, uid=ordinary_user, shorter_waits=True) as made:
        yield made


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that all users may look into; pytest's are closed."""
    with tempfile.TemporaryDirectory(prefix="regfs-tests-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def bytes_of(mount: Mounted) -> int:
    return sum(path.stat().st_blocks * 512 for path in mount.cache.rglob("*") if path.is_file())


def remove_image(mount: Mounted) -> subprocess.CompletedProcess[str]:
    """Evict all images by rm, as the user of the mount."""
    return mount.run("sh", "-c", 'exec rm "$0"/.regfs/cache/images/*', mount.path, check=False)


def look_into(mount: Mounted, path: str = "etc/shadow") -> str:
    """Read a file of the demo's image as the user of the mount."""
    return mount.run("cat", mount.path / "demo/real/v2/rootfs" / path).stdout


def insist_on_eviction(mount: Mounted) -> None:
    shadow = look_into(mount)
    before, ingests = bytes_of(mount), mount_stats(mount)["layers.ingests"]
    becomes(lambda: remove_image(mount).returncode, 0)
    for kind in ("images", "layers", "tables"):
        assert mount.run("ls", mount.path / ".regfs/cache" / kind).stdout == ""
    assert bytes_of(mount) < before / 2
    assert look_into(mount, "usr/lib/python/json/decoder.py") != ""
    assert look_into(mount) == shadow
    assert mount_stats(mount)["layers.ingests"] > ingests
    becomes(lambda: mount.run("ls", mount.path / ".regfs/cache/images").stdout.count("\n"), 1)  # made now and then


def mount_stats(mount: Mounted) -> dict[str, float]:
    counters: dict[str, float] = json.loads(mount.run("cat", mount.path / ".regfs/stats.json").stdout)
    return counters


def test_root_evicts_an_image_and_the_next_read_fetches_it(mount_regfs: MountRegfs, demo: Demo, driver: str) -> None:
    insist_on_eviction(mount_regfs("--driver", driver, "--default-registry", demo.address, shorter_waits=True))


def test_an_ordinary_user_evicts_what_is_theirs(users_mount: Mounted) -> None:
    insist_on_eviction(users_mount)


def test_rm_of_an_open_image_says_why_it_stays(mount_regfs: MountRegfs, demo: Demo, driver: str) -> None:
    mount = mount_regfs("--driver", driver, "--default-registry", demo.address)
    with (mount.path / "demo/real/v2/rootfs/var/lib/big").open("rb", buffering=0) as opened:
        head = opened.read(100)
        done = remove_image(mount)
        assert (done.returncode, os.strerror(errno.EBUSY) in done.stderr) == (1, True)
        assert "stays in the cache: a process has it open" in mount.errors()
        opened.seek(0)
        assert opened.read(100) == head
    becomes(lambda: remove_image(mount).returncode, 0)


@needs_root
def test_rm_of_an_image_that_the_kernel_has_mounted_says_so(
    mount_regfs: MountRegfs, demo: Demo, tmp_path: Path
) -> None:
    if reason := missing_for_erofs():
        pytest.skip(reason)
    mount = mount_regfs("--default-registry", demo.address)
    (tmp_path / "image").mkdir()
    name = f"{demo.address}/demo/real:v2"
    mount.run(*regfs_command(), "mount", "--cache-dir", mount.cache, name, tmp_path / "image")
    try:
        assert remove_image(mount).returncode == 1
        assert "the kernel has it mounted (regfs umount)" in mount.errors()
    finally:
        mount.run("umount", tmp_path / "image")
    becomes(lambda: remove_image(mount).returncode, 0)


@needs_root
def test_others_who_are_let_in_may_not_evict(
    open_directory: Path, mount_regfs: MountRegfs, demo: Demo, driver: str, ordinary_user: int
) -> None:
    options = ("--driver", driver, "--allow-other", "--default-registry", demo.address)
    mount = mount_regfs(*options, directory=open_directory)
    look_into(mount)
    (image,) = (mount.path / ".regfs/cache/images").iterdir()
    assert subprocess.run([*as_user(NOBODY), "cat", image], capture_output=True, check=False).returncode == 0
    others = subprocess.run([*as_user(NOBODY), "rm", "-f", image], capture_output=True, text=True, check=False)
    assert os.strerror(errno.EACCES) in others.stderr
    assert image.exists()
    becomes(lambda: remove_image(mount).returncode, 0)


def test_the_next_daemon_evicts_too(mount_regfs: MountRegfs, demo: Demo) -> None:
    mount = mount_regfs("--default-registry", demo.address)
    await_holder(mount.path)
    look_into(mount)
    images = os.open(mount.path / ".regfs/cache/images", os.O_RDONLY | os.O_DIRECTORY)
    (image,) = os.listdir(images)
    for end in (lambda: kill_daemon(mount.path), lambda: mount.run(*regfs_command(), "restart", mount.path)):
        becomes(lambda: os.listdir(mount.path / ".regfs/cache/images"), [image])
        end()
        os.unlink(image, dir_fd=images)
        assert os.listdir(mount.path / ".regfs/cache/images") == []
        look_into(mount, "usr/lib/python/json/decoder.py")
    os.close(images)


def test_a_mount_with_ro_is_read_only_for_the_kernel_and_the_verb_evicts(
    mount_regfs: MountRegfs, demo: Demo, driver: str
) -> None:
    mount = mount_regfs("--driver", driver, "--default-registry", demo.address, "-o", "rw,ro")
    look_into(mount)
    options = next(line for line in mountinfo() if f" {mount.path} " in line).split()[5]
    assert "ro" in options.split(",")
    assert os.statvfs(mount.path).f_flag & os.ST_RDONLY
    done = remove_image(mount)
    assert (done.returncode, os.strerror(errno.EROFS) in done.stderr) == (1, True)


def test_the_verb_takes_the_paths_of_parts(mount_regfs: MountRegfs, demo: Demo) -> None:
    first = mount_regfs("--default-registry", demo.address)
    look_into(first)
    first.unmount()
    mount = mount_regfs("--default-registry", demo.address, cache=first.cache, shorter_waits=True)
    directory = mount.path / ".regfs/cache/layers"
    layer, *others = sorted(os.listdir(directory))
    mount.run(*regfs_command(), "cache", "rm", "--cache-dir", mount.cache, "--dry-run", directory / layer)
    assert sorted(os.listdir(directory)) == [layer, *others]
    mount.run(*regfs_command(), "cache", "rm", "--cache-dir", mount.cache, directory / layer)
    becomes(lambda: sorted(os.listdir(directory)), others)
    done = mount.run(*regfs_command(), "cache", "rm", "--cache-dir", mount.cache, directory / layer, check=False)
    assert (done.returncode, "is not in the cache" in done.stderr) == (3, True)


def test_the_verb_says_why_a_part_stays(mount_regfs: MountRegfs, demo: Demo) -> None:
    mount = mount_regfs("--default-registry", demo.address)
    look_into(mount)
    (table,) = (mount.path / ".regfs/cache/tables").iterdir()
    with (mount.path / "demo/real/v2/rootfs/var/lib/big").open("rb", buffering=0) as opened:
        assert opened.read(100)
        done = mount.run(*regfs_command(), "cache", "rm", "--cache-dir", mount.cache, table, check=False)
    told = f"regfs: tables/{table.name} stays in the cache: a process has it open\n"
    assert (done.returncode, done.stderr) == (1, told)
