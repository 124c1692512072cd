"""Caches that are full, read-only, rotten or torn, seen by the user of a mount: F60 of the fault catalogue."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import becomes, needs_root
from tests.e2e.faults.conftest import MOTD, by_itself
from tests.support.cache import assert_cache_is_clean, blobs_in
from tests.support.caches import tmpfs
from tests.support.fault_server import Connection, FaultServer
from tests.support.faulty_mount import FaultyMount
from tests.support.images import BuiltImage
from tests.support.mounted import regfs_command

pytestmark = by_itself

DISK = "size=2m"


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of two megabytes in the place of the mount's cache directory; to be asked for before `faulty`."""
    with tmpfs(tmp_path / "cache", getattr(request, "param", DISK)) as disk:
        yield disk


def blob_of(faulty: FaultyMount, image: BuiltImage, name: str = "app") -> Path:
    return faulty.path(f"{name}/1/blobs/{image.layers[0].digest}")


def fill(disk: Path) -> Path:
    """Take all room that *disk* has; the daemon may take some of it meanwhile."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    with suppress(OSError):
        filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
    return filler


@needs_root
def test_f60_an_image_that_the_disk_has_no_room_for_is_read_all_the_same_and_told(
    small_disk: Path, faulty: FaultyMount
) -> None:
    big = faulty.push_app("big", random_bytes=3_000_000)
    faulty.push_app()
    assert faulty.reads(faulty.path("big/1/rootfs/motd"))
    assert faulty.path("big/1/rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert not list(small_disk.rglob("*.tar"))
    assert blob_of(faulty, big, "big").read_bytes() == big.layers[0].blob
    assert str(small_disk) in faulty.errors()
    assert "--cache-dir" in faulty.errors()
    assert faulty.path("big/1/manifest.json").read_bytes() == big.manifest
    assert faulty.reads(faulty.path(MOTD))


def test_f60_an_image_that_is_bigger_than_the_cache_may_be_is_read_all_the_same_and_told(faulty: FaultyMount) -> None:
    big = faulty.push_app("big", random_bytes=3_000_000)
    faulty.push_app()
    faulty.mount("--cache-size", "2M")
    names = sorted(path for path in faulty.path("big/1/rootfs").rglob("*") if path.is_file())
    assert sum(len(path.read_bytes()) for path in names) > 3_000_000
    assert blob_of(faulty, big, "big").read_bytes() == big.layers[0].blob
    assert faulty.errors().count("--cache-size") == 1
    assert faulty.reads(faulty.path(MOTD))


def config_of(image: BuiltImage) -> str:
    (digest,) = (str(digest) for digest, content in image.blobs().items() if content == image.config)
    return digest


@needs_root
def test_f60_a_disk_that_fills_up_costs_no_document_no_layer_and_no_blob(small_disk: Path, faulty: FaultyMount) -> None:
    known = faulty.push_app("known")
    in_use = faulty.path("known/1/rootfs/motd").open("rb")
    filler = fill(small_disk)
    new = faulty.push_app()
    assert faulty.path("app/1/manifest.json").read_bytes() == new.manifest
    assert faulty.path("app/1/config.json").read_bytes() == new.config
    assert faulty.path("app/1/digest").read_text() == f"{new.digest}\n"
    assert faulty.reads(faulty.path(MOTD))
    assert blob_of(faulty, new).read_bytes() == new.layers[0].blob
    assert str(small_disk) in faulty.errors()
    assert faulty.reads(faulty.path("known/1/rootfs/motd"))
    in_use.close()
    assert faulty.path("known/1/manifest.json").read_bytes() == known.manifest
    filler.unlink()
    assert faulty.reads(faulty.path(MOTD))
    assert blob_of(faulty, new).read_bytes() == new.layers[0].blob


@needs_root
@pytest.mark.parametrize("small_disk", [f"{DISK},ro"], indirect=True)
def test_f60_a_read_only_cache_costs_no_answer_and_the_user_is_told(
    small_disk: Path, faulty: FaultyMount, tmp_path: Path
) -> None:
    image = faulty.push_app()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    faulty.mount(environment={"TMPDIR": str(elsewhere)})
    assert faulty.reads(faulty.path(MOTD))
    assert blob_of(faulty, image).read_bytes() == image.layers[0].blob
    assert faulty.errors() == ""
    assert list(small_disk.iterdir()) == []
    faulty.mounted.unmount()
    assert list(elsewhere.iterdir()) == []
    told = faulty.mounted.run(*faulty.mounted.command).stderr
    assert "Read-only file system" in told
    assert "--cache-dir" in told


def rot(path: Path) -> None:
    """Turn a bit of the file's middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.chmod(0o644)
    path.write_bytes(content)


def shorten(path: Path) -> None:
    """Take the second half of the file away."""
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [rot, shorten])
def test_f60_damaged_documents_and_layers_are_fetched_again_before_anything_is_made_of_them(
    faulty: FaultyMount, damage: object
) -> None:
    assert callable(damage)
    image = faulty.push_app(random_bytes=100_000)
    assert blob_of(faulty, image).read_bytes() == image.layers[0].blob
    assert faulty.path("app/1/config.json").read_bytes() == image.config
    for digest in (str(image.digest), config_of(image), str(image.layers[0].digest)):
        (copy,) = faulty.cache.rglob(digest.removeprefix("sha256:"))
        damage(copy)
    faulty.remount()
    asked = len(faulty.server.paths("GET .*/(manifests|blobs)/"))
    assert faulty.path("app/1/manifest.json").read_bytes() == image.manifest
    assert faulty.path("app/1/config.json").read_bytes() == image.config
    assert faulty.reads(faulty.path(MOTD))
    assert len(faulty.server.paths("GET .*/(manifests|blobs)/")) == asked + 3
    assert blob_of(faulty, image).read_bytes() == image.layers[0].blob
    assert faulty.errors() == ""


@pytest.mark.parametrize("size", [400_000, 0], ids=["big files", "small files"])
def test_f60_a_file_of_the_cache_that_lost_its_end_is_made_again(faulty: FaultyMount, size: int) -> None:
    image = faulty.push_app(random_bytes=size)
    assert faulty.reads(faulty.path(MOTD))
    (damaged,) = faulty.cache.glob("layers/*.tar")
    damaged.chmod(0o644)
    os.truncate(damaged, 1000)  # a tar's own end is zeros, which no file needs
    faulty.remount()
    assert faulty.reads(faulty.path(MOTD))
    assert len(faulty.server.paths(f"GET .*{image.layers[0].digest}")) == 2
    assert faulty.errors() == ""


HALF_FETCHED = {
    "ingest in the daemon": (MOTD, 200_000),
    "ingest in a process": (MOTD, 2_000_000),
    "blob": ("", 200_000),
}


class HalfFetched:
    """An image of *server* whose layer a reader waits for, and of which half has come."""

    def __init__(self, faulty: FaultyMount, server: FaultServer, what: str, ended: threading.Event) -> None:
        name, size = HALF_FETCHED[what]
        self.image = faulty.push_app(server=server, random_bytes=size)
        self.digest = str(self.image.layers[0].digest)
        self.motd = faulty.path(MOTD, server=server)
        self.blob = faulty.path(f"app/1/blobs/{self.digest}", server=server)
        reached = threading.Event()

        def stop_half_way(connection: Connection) -> bool:
            response = connection.right()
            connection.send(response.head() + response.body[: size // 2])
            reached.set()
            ended.wait(100)
            return False

        server.on("GET", f"/blobs/{self.digest}", stop_half_way, times=1)
        path = self.motd if name else self.blob
        self.reader = subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert reached.wait(100)


def test_f60_what_a_killed_daemon_had_half_fetched_is_removed_and_fetched_again(faulty: FaultyMount) -> None:
    faulty.mount()
    ended = threading.Event()
    fetched = [HalfFetched(faulty, faulty.new_server(), what, ended) for what in HALF_FETCHED]
    faulty.mounted.die()
    for each in fetched:
        output, complaint = each.reader.communicate(timeout=100)
        assert (output, bool(complaint)) == (b"", True)
        assert each.digest not in blobs_in(faulty.cache)
    ended.set()
    faulty.mounted.mount()
    for each in fetched:
        assert faulty.reads(each.motd)
        assert each.blob.read_bytes() == each.image.layers[0].blob
    becomes(lambda: is_clean(faulty.cache), True)
    verified = faulty.mounted.run(*regfs_command(), "cache", "verify", "--cache-dir", faulty.cache)
    assert verified.stdout == "all is well\n"


def is_clean(cache: Path) -> bool:
    """Tell whether nothing half-made is in the cache; a daemon looks for that while it serves already."""
    try:
        assert_cache_is_clean(cache)
    except (AssertionError, FileNotFoundError):  # the latter is swept away while it is looked at
        return False
    return True
