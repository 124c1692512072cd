"""Images with tables of contents, mounted: what is read is fetched, and what is here is served.

tests/images/test_lazy_layers.py has each promise for each format, without a mount. Here all formats meet the kernel
once, and each promise meets both drivers.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo, needs_root
from tests.support.caches import tmpfs
from tests.support.images import BuiltImage, BuiltLayer, directory, file, hardlink, image_of, layer_of_tar, symlink
from tests.support.lazy_layers import estargz, zstd_chunked
from tests.support.mounted import Mounted
from tests.support.proxy import Answer, ReverseProxy, Seen
from tests.support.push import Pusher

MIB = 1 << 20
BUILDERS: dict[str, Callable[..., BuiltLayer]] = {
    "estargz": partial(estargz, chunk_size=MIB // 2),
    "estargz-inner": partial(estargz, chunk_size=MIB // 2, least_member=MIB),
    "zstd-chunked": partial(zstd_chunked, chunk_size=MIB // 8),
}
BIG = os.urandom(6 * MIB)
ENTRIES = (
    directory("usr"),
    directory("usr/bin", mode=0o1755),
    *(file(f"usr/bin/tool{number}", os.urandom(200_000), mode=0o755) for number in range(20)),
    symlink("bin", "usr/bin"),
    file("big", BIG),
    hardlink("same", "big"),
    file("empty"),
)


@cache
def in_format(name: str) -> tuple[BuiltLayer, BuiltLayer]:
    """Return the layer in a format, and the plain one of the same archive."""
    built = BUILDERS[name](*ENTRIES)
    return built, layer_of_tar(built.tar, compression="none")


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """The driver that the test names."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, demo: Demo) -> BuiltImage:
    """Push lazy/app:1 in the format that the test names, and the same archive as lazy/app:plain."""
    built, plain = in_format(request.param)
    push = Pusher(demo.url)
    push.image("lazy/app", "plain", image_of(plain))
    return push.image("lazy/app", "1", image_of(built))


@pytest.fixture
def mount(mount_regfs: MountRegfs, driver: str, proxy: ReverseProxy, image: BuiltImage) -> Mounted:
    """A mount with an empty cache, of a registry that writes down what is asked."""
    return mount_regfs("--driver", driver, "--default-registry", proxy.address)


def fetched(proxy: ReverseProxy, image: BuiltImage) -> int:
    """Return how many bytes of the image's layer were asked for."""
    total = 0
    for seen in proxy.seen:
        if seen.method == "GET" and seen.path.endswith(f"/blobs/{image.layers[0].digest}"):
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers.get("range", ""))
            total += int(match[2]) + 1 - int(match[1]) if match else len(image.layers[0].blob)
    return total


def sums(rootfs: Path) -> dict[str, str]:
    """Return the sha256 of every file below *rootfs* but those of the formats themselves."""
    # Not by cwd=: it is changed while this process stands still, and with it the server that the mount asks.
    command = "cd $0 && find . -type f ! -name '.no.prefetch.landmark' ! -name 'stargz.index.json' -exec sha256sum {} +"
    shown = subprocess.run(["sh", "-c", command, rootfs], check=True, capture_output=True, text=True).stdout
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in shown.splitlines())}


@pytest.mark.parametrize(
    ("image", "driver"),
    [("estargz", "kernel"), ("estargz-inner", "kernel"), ("zstd-chunked", "kernel"), ("estargz-inner", "fusepy")],
    indirect=True,
)
def test_names_cost_the_table_files_cost_their_chunks_and_all_is_that_of_the_plain_image(
    mount: Mounted, proxy: ReverseProxy, image: BuiltImage
) -> None:
    rootfs = mount.path / "lazy/app/1/rootfs"
    listed = subprocess.run(["ls", "-lR", rootfs], check=True, capture_output=True, text=True).stdout
    assert "tool19" in listed
    assert (before := fetched(proxy, image)) <= 1 << 17
    assert mount.stats().get("layers.ingests", 0) == 0
    assert (rootfs / "usr/bin/tool7").read_bytes() == ENTRIES[9].content
    assert 0 < fetched(proxy, image) - before < 2 * MIB
    with (rootfs / "big").open("rb") as opened:
        opened.seek(4 * MIB)
        assert opened.read(1000) == BIG[4 * MIB : 4 * MIB + 1000]
    assert fetched(proxy, image) - before < 5 * MIB
    lazy = sums(rootfs)
    assert lazy == sums(mount.path / "lazy/app/plain/rootfs")
    assert lazy["./big"] == hashlib.sha256(BIG).hexdigest()
    assert mount.stats()["layers.tables"] == 1


@pytest.mark.parametrize(("image", "driver"), [("estargz", "kernel"), ("zstd-chunked", "fusepy")], indirect=True)
def test_offline_what_is_here_is_served_and_the_rest_says_why(
    mount: Mounted, mount_regfs: MountRegfs, driver: str, proxy: ReverseProxy
) -> None:
    (mount.path / "lazy/app/1/rootfs/usr/bin/tool7").read_bytes()
    mount.unmount()
    proxy.seen.clear()
    offline = mount_regfs("--driver", driver, "--offline", "--default-registry", proxy.address, cache=mount.cache)
    rootfs = offline.path / "lazy/app/1/rootfs"
    assert (rootfs / "usr/bin/tool7").read_bytes() == ENTRIES[9].content
    assert (rootfs / "empty").read_bytes() == b""
    assert "tool19" in os.listdir(rootfs / "bin")
    assert (rootfs / "big").stat().st_size == len(BIG)
    with pytest.raises(OSError) as failure:
        (rootfs / "big").read_bytes()
    assert failure.value.errno == errno.EHOSTUNREACH
    assert (rootfs / "usr/bin/tool7").read_bytes() == ENTRIES[9].content
    assert proxy.seen == []


@pytest.mark.parametrize(
    ("image", "driver", "requests"),
    [("estargz", "kernel", 2), ("estargz-inner", "fusepy", 2), ("zstd-chunked", "kernel", 3)],
    indirect=["image", "driver"],
)
def test_a_daemon_killed_while_chunks_come_leaves_nothing_wrong(
    mount: Mounted,
    mount_regfs: MountRegfs,
    driver: str,
    proxy: ReverseProxy,
    image: BuiltImage,
    requests: int,
) -> None:
    os.listdir(mount.path / "lazy/app/1/rootfs")
    ranges = 0

    def kill_at_the_last(seen: Seen) -> Answer | None:
        nonlocal ranges
        if seen.path.endswith(f"/blobs/{image.layers[0].digest}"):
            ranges += 1
            if ranges == requests:
                mount.die()
        return None

    proxy.answer = kill_at_the_last
    subprocess.run(["cat", mount.path / "lazy/app/1/rootfs/big"], check=False, capture_output=True)
    proxy.answer = lambda _seen: None
    assert ranges >= requests, "the daemon was not killed: fewer requests than the test waits for"
    mount.clean_up()
    again = mount_regfs("--driver", driver, "--default-registry", proxy.address, cache=mount.cache)
    assert (again.path / "lazy/app/1/rootfs/big").read_bytes() == BIG
    assert sums(again.path / "lazy/app/1/rootfs") == sums(again.path / "lazy/app/plain/rootfs")


@needs_root
@pytest.mark.parametrize(("image", "driver"), [("estargz-inner", "kernel"), ("zstd-chunked", "fusepy")], indirect=True)
def test_on_a_full_disk_files_are_served_all_the_same(
    mount_regfs: MountRegfs, driver: str, proxy: ReverseProxy, image: BuiltImage, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "small", "size=5m") as disk:
        mount = mount_regfs("--driver", driver, "--default-registry", proxy.address, cache=disk)
        found = sums(mount.path / "lazy/app/1/rootfs")
        assert found["./big"] == hashlib.sha256(BIG).hexdigest()
        assert found["./usr/bin/tool19"] == hashlib.sha256(ENTRIES[21].content).hexdigest()
        assert mount.errors().count("is not kept") == 1
        mount.unmount()
