"""Tags that move while their image is in use, and mounts that share a cache."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, becomes
from tests.support.images import file, image_of, layer
from tests.support.mounted import Mounted, wait_for_exit
from tests.support.proxy import ReverseProxy
from tests.support.push import Pusher
from tests.support.snapshot import differences, snapshot


def push_version(demo: Demo, repository: str, text: str) -> None:
    """Let the tag `latest` name an image whose file `version` holds *text*."""
    image = image_of(layer(file("version", text.encode()), file(f"only-in-{text}")))
    Pusher(demo.url).image(repository, "latest", image)


@pytest.fixture
def moving(mount_regfs: MountRegfs, demo: Demo, driver: str) -> Mounted:
    """A mount that asks for a tag at every look-up."""
    push_version(demo, f"moving/{driver}", "one")
    return mount_regfs("--driver", driver, "--tag-ttl", "0s", "--default-registry", demo.address, shorter_waits=True)


def test_a_moved_tag_shows_the_new_image_to_new_lookups(moving: Mounted, demo: Demo, driver: str) -> None:
    image = moving.path / "moving" / driver / "latest"
    assert (image / "rootfs/version").read_text() == "one"
    push_version(demo, f"moving/{driver}", "two")
    becomes((image / "rootfs/version").read_text, "two")


def test_an_image_in_use_stays_whole_when_its_tag_moves(moving: Mounted, demo: Demo, driver: str) -> None:
    image = moving.path / "moving" / driver / "latest"
    inside = os.open(image / "rootfs", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open(image / "rootfs/version", "rb", buffering=0) as file:
            push_version(demo, f"moving/{driver}", "two")
            if driver == "kernel":  # libfuse has one node for a path: the new image waits while the old one is read
                assert (image / "rootfs/version").read_text() == "two"
            assert file.read() == b"one"
        assert sorted(os.listdir(inside)) == ["only-in-one", "version"]
        if driver == "fusepy":
            return  # libfuse asks for every name by its full path
        again = os.open("version", os.O_RDONLY, dir_fd=inside)
        try:
            assert os.read(again, 100) == b"one"
        finally:
            os.close(again)
    finally:
        os.close(inside)


def test_a_tag_is_trusted_for_its_time(mount_regfs: MountRegfs, demo: Demo, proxy: ReverseProxy) -> None:
    push_version(demo, "moving/trusted", "one")
    mount = mount_regfs("--tag-ttl", "1h", "--default-registry", proxy.address)
    version = mount.path / "moving/trusted/latest/rootfs/version"
    assert version.read_text() == "one"
    push_version(demo, "moving/trusted", "two")
    proxy.seen.clear()
    assert version.read_text() == "one"
    assert proxy.seen == []


def test_hup_lets_tags_and_listings_be_asked_for_again(mount_regfs: MountRegfs, demo: Demo, driver: str) -> None:
    name = f"moving/refreshed-{driver}"
    push_version(demo, name, "one")
    options = ["--driver", driver, "--tag-ttl", "1h", "--default-registry", demo.address]
    mount = mount_regfs(*options, shorter_waits=True)
    repository = mount.path / name
    assert (os.listdir(repository), (repository / "latest/rootfs/version").read_text()) == (["latest"], "one")
    inside = os.open(repository / "latest/rootfs", os.O_RDONLY | os.O_DIRECTORY)
    try:
        push_version(demo, name, "two")
        Pusher(demo.url).image(name, "another", image_of(layer(file("version", b"another"))))
        pid = mount.daemon
        os.kill(pid, signal.SIGHUP)
        if driver == "kernel":  # with libfuse an open directory keeps its tag as it is
            becomes((repository / "latest/rootfs/version").read_text, "two")
        assert sorted(os.listdir(inside)) == ["only-in-one", "version"]
    finally:
        os.close(inside)
    becomes((repository / "latest/rootfs/version").read_text, "two")
    becomes(lambda: sorted(os.listdir(repository)), ["another", "latest"])


def test_two_mounts_share_a_cache_while_both_are_busy(mount_regfs: MountRegfs, demo: Demo, tmp_path: Path) -> None:
    mounts = [mount_regfs("--default-registry", demo.address, cache=tmp_path / "shared") for _ in range(2)]
    start = threading.Barrier(2)

    def look(mount: Mounted) -> dict[bytes, object]:
        start.wait()
        return dict(snapshot(mount.path / "demo/real/v2/rootfs"))

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(look, mounts)
    assert differences(one, other) == []  # type: ignore[arg-type]


def test_a_cache_deleted_below_a_mount_costs_time_and_no_answers(mount_regfs: MountRegfs, demo: Demo) -> None:
    mount = mount_regfs("--default-registry", demo.address)
    assert os.listdir(mount.path / "demo/real/v1/rootfs/etc")
    for directory, _names, files in os.walk(mount.cache, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
    assert (mount.path / "library/hello-world/latest/rootfs/hello").stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_unmounts(mount_regfs: MountRegfs, demo: Demo, driver: str, number: signal.Signals) -> None:
    mount = mount_regfs("--driver", driver, "--default-registry", demo.address)
    os.listdir(mount.path)
    daemon, *others = mount.processes()
    os.kill(daemon, number)
    assert wait_for_exit([daemon, *others]) == []
    assert os.listdir(mount.path) == []


def test_a_dead_mount_is_replaced(mount_regfs: MountRegfs, demo: Demo, driver: str) -> None:
    mount = mount_regfs("--driver", driver, "--default-registry", demo.address)
    os.listdir(mount.path)
    mount.die()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mount.path)
    mount.mount()
    assert (mount.path / "library/hello-world/latest/rootfs/hello").is_file()
