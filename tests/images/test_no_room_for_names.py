"""Caches that can take nothing at all: images are shown from a temporary directory, and move to the cache later."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from regfs.errors import WouldBlock
from regfs.images.layers import temporary_cache
from regfs.process.waiting.deadline import NON_BLOCKING, under
from tests.support.caches import tmpfs
from tests.support.images import file, image_of, layer
from tests.support.lazy_layers import estargz
from tests.support.read_only import needs_root, read_only
from tests.support.served import Served

MIB = 1 << 20
BIG = os.urandom(3 * MIB)
SMALL = layer(file("small", b"small"), file("both", b"lower"))
TOP = layer(file("big", BIG), file("both", b"upper"))
pytestmark = needs_root


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    return elsewhere


@pytest.fixture
def served(tmp_path: Path, elsewhere: Path) -> Iterator[Served]:
    with tmpfs(tmp_path / "disk", "size=40m") as disk, closing(Served(disk / "cache")) as served:
        yield served


def fill(disk: Path) -> Path:
    """Take all room that *disk* has."""
    filler = disk / "of another program"
    with filler.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


@pytest.mark.parametrize("lazy", [False, True])
def test_on_a_disk_without_any_room_an_image_is_shown_and_what_is_cached_stays(
    served: Served, elsewhere: Path, lazy: bool
) -> None:
    top = estargz(file("big", BIG), file("both", b"upper")) if lazy else TOP
    served.push("known", "1", image_of(SMALL))
    served.push("new", "1", image_of(SMALL, top))
    shown = served.show(limit=1 << 30)
    assert shown.read("known/1/rootfs/small") == b"small"
    filler = fill(served.cache.parent)
    assert shown.names("new/1/rootfs") == ["big", "both", "small"]
    assert shown.read("new/1/rootfs/big") == BIG
    assert shown.read("new/1/rootfs/both") == b"upper"
    assert shown.read("new/1/rootfs/small") == b"small"
    assert shown.read("new/1/layers/1/tree/big") == BIG
    assert shown.read("known/1/rootfs/small") == b"small"
    assert len(served.server.paths(f"blobs/{SMALL.digest}")) == 1
    assert list(elsewhere.rglob("*.index"))
    assert sum(path.stat().st_blocks * 512 for path in elsewhere.rglob("*.*")) < MIB
    assert shown.read(".regfs/errors").count(b"is not kept") == 1
    filler.unlink()
    assert shown.read("new/1/rootfs/big") == BIG
    with served.show(limit=1 << 30) as other:
        assert other.read("new/1/rootfs/big") == BIG
        assert list(served.cache.glob("images/*.merged"))
    assert served.show(offline=True, limit=1 << 30).read("new/1/rootfs/big") == BIG
    shown.contents.stop()
    del shown
    gc.collect()
    assert list(elsewhere.iterdir()) == []


def test_a_running_mount_moves_to_the_cache_once_that_can_be_written(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_cache, "REFUSED_S", 0.0)
    served.push("new", "1", image_of(SMALL, TOP))
    shown = served.show(limit=1 << 30, tag_ttl_s=0.0)
    filler = fill(served.cache.parent)
    assert shown.read("new/1/rootfs/big") == BIG
    assert not list(served.cache.glob("images/*.merged"))
    filler.unlink()
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.read("new/1/rootfs/big")  # as the kernel driver asks first
    assert shown.read("new/1/rootfs/big") == BIG
    assert shown.read("new/1/rootfs/both") == b"upper"
    assert list(served.cache.glob("images/*.merged"))
    assert list(served.cache.glob("layers/*.tar"))


def test_on_a_disk_that_became_read_only_a_new_image_is_shown(served: Served, elsewhere: Path) -> None:
    served.push("known", "1", image_of(SMALL))
    served.push("new", "1", image_of(SMALL, TOP))
    shown = served.show(limit=1 << 30)
    assert shown.read("known/1/rootfs/small") == b"small"
    with read_only(served.cache):
        assert shown.names("new/1/rootfs") == ["big", "both", "small"]
        assert shown.read("new/1/rootfs/big") == BIG
        assert shown.read("new/1/rootfs/both") == b"upper"
        assert shown.read("known/1/rootfs/small") == b"small"
        assert shown.read(".regfs/errors").count(b"is not kept") == 1


def test_an_evicted_file_of_an_image_in_use_is_read_when_the_disk_became_read_only(served: Served) -> None:
    """It was EIO: the layer had its names in the cache, which could not take its bytes again."""
    served.push("known", "1", image_of(TOP))
    shown = served.show(limit=1 << 30)
    assert shown.read("known/1/rootfs/both") == b"upper"
    for data in served.cache.glob("layers/*.tar"):
        data.unlink()
    shown.contents.store.tables.close_idle()
    with read_only(served.cache):
        assert shown.read("known/1/rootfs/big") == BIG
        assert shown.read("known/1/rootfs/both") == b"upper"
        assert shown.read(".regfs/errors").count(b"is not kept") == 1
    assert shown.read("known/1/rootfs/big") == BIG
