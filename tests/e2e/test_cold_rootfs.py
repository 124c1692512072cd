"""A rootfs that nothing has looked into yet: what lists it fetches no layer, what names it gets its real attributes."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountRegfs, missing
from tests.e2e.conftest import Demo, becomes
from tests.support.images import BuiltImage, directory, file, image_of, layer
from tests.support.mounted import Mounted
from tests.support.proxy import Answer, ReverseProxy, Seen
from tests.support.push import Pusher

MTIME = 1_234_567_890
Real = tuple[int, int, int, int]
REAL: Real = (0o1751, 12, 34, MTIME)
MOST_S = 60


def real(path: Path) -> Real:
    """Return what the image says of its root directory, where that is what *path* shows."""
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, int(found.st_mtime)


@pytest.fixture(scope="module")
def built(demo: Demo) -> BuiltImage:
    """Push cold/app:1, whose root directory is like no other."""
    root = directory(".", mode=REAL[0], uid=REAL[1], gid=REAL[2], mtime_ns=MTIME * 10**9)
    return Pusher(demo.url).image("cold/app", "1", image_of(layer(root, file("a", b"content"), directory("d"))))


@pytest.fixture
def cold(mount_regfs: MountRegfs, driver: str, proxy: ReverseProxy, built: BuiltImage) -> Iterator[Mounted]:
    """A fresh mount, with an empty cache, of a registry that writes down what is asked."""
    yield mount_regfs("--driver", driver, "--default-registry", proxy.address)
    proxy.answer = lambda _seen: None


@pytest.fixture
def tag(cold: Mounted) -> Path:
    """The directory of cold/app:1."""
    return cold.path / "cold/app/1"


@pytest.fixture
def tag_soon_seen_anew(mount_regfs: MountRegfs, driver: str, proxy: ReverseProxy, built: BuiltImage) -> Path:
    """The same where a listing is believed for a fifth of a second: too short for those that look again."""
    mount = mount_regfs("--driver", driver, "--default-registry", proxy.address, shorter_waits=True)
    return mount.path / "cold/app/1"


def layers_asked_for(proxy: ReverseProxy, built: BuiltImage) -> list[str]:
    return proxy.paths(f"GET .*/blobs/{built.layers[0].digest}")


LISTINGS = [
    "ls {tag}",
    "ls -la --color=always {tag}",
    "ls -F {tag}",
    "find {tag} -maxdepth 1 -printf '%p %s %m\\n'",
    "find {tag} -maxdepth 1 -type d",
    "bash -c 'compgen -d {tag}/ro; compgen -f {tag}/'",
    "ls -l {tag}/layers/000",
]


def test_listing_what_a_rootfs_is_in_fetches_no_layer(tag: Path, proxy: ReverseProxy, built: BuiltImage) -> None:
    for command in LISTINGS:
        done = subprocess.run(command.format(tag=tag), shell=True, capture_output=True, text=True, timeout=MOST_S)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "rootfs" in done.stdout or "tree" in done.stdout, command
        assert layers_asked_for(proxy, built) == [], command


@pytest.mark.parametrize("name", ["rootfs", "layers/000/tree"])
def test_stat_of_a_cold_rootfs_tells_its_real_attributes(tag: Path, name: str) -> None:
    assert real(tag / name) == REAL


def test_cp_and_rsync_of_a_cold_rootfs_copy_its_real_attributes(
    mount_regfs: MountRegfs, driver: str, demo: Demo, built: BuiltImage, tmp_path: Path
) -> None:
    for command in ("cp -a {rootfs} {copy}", "rsync -a {rootfs} {copy}.d && mv {copy}.d/rootfs {copy}"):
        if shutil.which(command.split()[0]) is None:
            missing(f"{command.split()[0]} is not installed")
        copy = tmp_path / command.split()[0]
        mount = mount_regfs("--driver", driver, "--default-registry", demo.address, cache=tmp_path / f"{copy}-cache")
        rootfs = mount.path / "cold/app/1/rootfs"
        subprocess.run(command.format(rootfs=rootfs, copy=copy), shell=True, check=True, timeout=MOST_S)
        if os.getuid() == 0:
            assert real(copy) == REAL, command
        assert (copy / "a").read_bytes() == b"content"
        mount.unmount()


def test_a_rootfs_that_was_listed_has_its_real_attributes_a_moment_later(tag_soon_seen_anew: Path) -> None:
    tag = tag_soon_seen_anew
    assert "rootfs" in os.listdir(tag)
    becomes(lambda: real(tag / "rootfs"), REAL)


def test_an_archive_of_the_tag_s_directory_has_the_real_attributes_of_its_rootfs(tag: Path, driver: str) -> None:
    done = subprocess.run(["tar", "-C", tag, "-cf", "-", "."], stdout=subprocess.PIPE, check=True, timeout=MOST_S)
    told = subprocess.run(["tar", "-tvf", "-", "--numeric-owner"], input=done.stdout, capture_output=True, check=True)
    lines = [line for line in told.stdout.decode().splitlines() if line.endswith(" ./rootfs/")]
    if driver == "kernel":  # libfuse 2 cannot tell the kernel to forget what the listing said
        assert [line.split()[:2] for line in lines] == [["drwxr-x--t", "12/34"]]
    assert len(lines) == 1


def refused(digest: object) -> object:
    def answer(seen: Seen) -> Answer | None:
        return Answer(403) if f"/blobs/{digest}" in seen.path else None

    return answer


def test_a_rootfs_whose_layers_are_refused_fails_by_name_and_its_tag_is_listed(
    tag_soon_seen_anew: Path, proxy: ReverseProxy, built: BuiltImage
) -> None:
    tag = tag_soon_seen_anew
    proxy.answer = refused(built.layers[0].digest)  # type: ignore[assignment]
    with pytest.raises(PermissionError):
        os.stat(tag / "rootfs")
    assert "rootfs" in os.listdir(tag)
    proxy.answer = lambda _seen: None
    becomes(lambda: os.path.isdir(tag / "rootfs") and real(tag / "rootfs"), REAL)


def test_a_reader_of_a_cold_rootfs_can_be_interrupted_and_listings_go_on_meanwhile(
    tag: Path, proxy: ReverseProxy, built: BuiltImage, driver: str
) -> None:
    arrived, released = threading.Event(), threading.Event()

    def hold(seen: Seen) -> None:
        if f"/blobs/{built.layers[0].digest}" in seen.path:
            arrived.set()
            released.wait(MOST_S)

    proxy.answer = hold
    os.listdir(tag)
    waiting = subprocess.Popen(["cat", tag / "rootfs/a"], stdout=subprocess.PIPE)
    try:
        assert arrived.wait(MOST_S)
        if driver == "kernel":  # with libfuse 2, the look-ups in one directory wait for each other
            assert "rootfs" in os.listdir(tag)
            assert (tag / "digest").read_text()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(MOST_S) == -signal.SIGINT
    finally:
        released.set()
        waiting.kill()
    assert (tag / "rootfs/a").read_bytes() == b"content"
