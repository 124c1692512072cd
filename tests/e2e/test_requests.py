"""What is asked of a registry, and above all what is not: counted at a server in front of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo
from tests.support.mounted import Mounted
from tests.support.proxy import ReverseProxy


@pytest.fixture
def mount(mount_regfs: MountRegfs, proxy: ReverseProxy) -> Mounted:
    """A fresh mount whose default registry is the recording server."""
    return mount_regfs("--default-registry", proxy.address)


def test_mounting_asks_nothing(mount: Mounted, proxy: ReverseProxy) -> None:
    assert proxy.seen == []


def test_names_that_no_grammar_allows_do_not_exist_and_ask_nothing(mount: Mounted, proxy: ReverseProxy) -> None:
    for name in (".git", ".Trash-0", ".hidden", "autorun.inf", "Under_Score", "a b", "-x", "..x", "%00"):
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / name)
        assert (name, proxy.seen) == (name, [])


def test_nor_are_they_asked_for_in_a_repository(mount: Mounted, proxy: ReverseProxy) -> None:
    os.listdir(mount.path / "library/hello-world")
    proxy.seen.clear()
    for name in (".git", "-x", "a b"):
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / "library/hello-world" / name)
        assert (name, proxy.seen) == (name, [])


def test_listing_tags_is_one_request_and_their_attributes_are_none(mount: Mounted, proxy: ReverseProxy) -> None:
    subprocess.run(["ls", "-l", mount.path / "demo/real"], check=True, capture_output=True)
    assert len(proxy.paths(r"GET /v2/demo/real/tags/list")) == 1
    assert proxy.paths(r"/manifests/v[12]|/blobs/") == []


def test_statfs_and_the_control_directory_ask_nothing(mount: Mounted, proxy: ReverseProxy) -> None:
    os.statvfs(mount.path)
    mount.stats()
    mount.errors()
    assert proxy.seen == []


def test_sizes_of_blobs_are_listed_without_fetching_one(mount: Mounted, proxy: ReverseProxy) -> None:
    subprocess.run(["ls", "-l", mount.path / "demo/real/v2/blobs"], check=True, capture_output=True)
    assert proxy.paths(r"GET .*/blobs/") == []


def test_a_blob_is_fetched_once(mount: Mounted, proxy: ReverseProxy, demo: Demo) -> None:
    rootfs = mount.path / "demo/real/v2/rootfs"
    subprocess.run(["tar", "-C", rootfs, "-cf", os.devnull, "."], check=True)
    (rootfs / "etc/replaced").read_text()
    for layer in demo.real.layers:
        assert len(proxy.paths(f"GET .*/blobs/{layer.digest}")) == 1


def test_two_spellings_of_a_repository_share_what_was_fetched(mount: Mounted, proxy: ReverseProxy, demo: Demo) -> None:
    (mount.path / "library/hello-world/latest/rootfs/hello").read_bytes()
    (mount.path / proxy.address / "library/hello-world/latest/rootfs/hello").read_bytes()
    assert len(proxy.paths(f"GET .*/blobs/{demo.hello.layers[0].digest}")) == 1


def test_a_digest_is_never_asked_for_twice(mount: Mounted, proxy: ReverseProxy, demo: Demo) -> None:
    image = mount.path / "library/hello-world" / str(demo.hello.digest)
    (image / "rootfs/hello").read_bytes()
    proxy.seen.clear()
    (image / "manifest.json").read_bytes()
    (image / "rootfs/hello").read_bytes()
    assert proxy.seen == []


def test_a_second_mount_ingests_no_layer_again(mount_regfs: MountRegfs, proxy: ReverseProxy, tmp_path: Path) -> None:
    first = mount_regfs("--default-registry", proxy.address, cache=tmp_path / "shared")
    os.listdir(first.path / "demo/real/v2/rootfs")
    first.unmount()
    proxy.seen.clear()
    second = mount_regfs("--default-registry", proxy.address, cache=tmp_path / "shared")
    (second.path / "demo/real/v2/rootfs/etc/replaced").read_text()
    assert second.stats().get("layers.ingests", 0) == 0
    assert proxy.paths("/blobs/") == []
