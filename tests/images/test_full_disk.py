"""Plain layers that the cache cannot take: they cost speed, and no answer."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from regfs.errors import CacheFull, DigestMismatch
from regfs.layers.spans import MOST_SPAN
from regfs.model.names import RepositoryName
from regfs.store.verify import verify
from tests.support.caches import tmpfs
from tests.support.fault_server import Response, changed
from tests.support.images import BuiltLayer, compressed, directory, file, image_of, layer_of_tar, tar_of
from tests.support.read_only import needs_root
from tests.support.served import Served
from tests.support.shown import Shown

MIB = 1 << 20
BYTES = random.Random(11)
FILES = {f"d/{number:02}": BYTES.randbytes(1_400_000 + 7_777 * number) for number in range(8)}
TAR = tar_of(directory("d"), *(file(name, content) for name, content in FILES.items()), file("small", b"small"))
# Zeros may follow an archive. They make the one frame of zstd too long for a span: it is decompressed from its start.
LONG_TAR = TAR + bytes(MOST_SPAN)
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def frames(size: int) -> BuiltLayer:
    return BuiltLayer(TAR, b"".join(compressed(TAR[at : at + size], "zstd") for at in range(0, len(TAR), size)), ZSTD)


def members(size: int) -> BuiltLayer:
    return BuiltLayer(
        TAR,
        b"".join(compressed(TAR[at : at + size], "gzip") for at in range(0, len(TAR), size)),
        "application/vnd.oci.image.layer.v1.tar+gzip",
    )


BUILDERS: dict[str, Callable[[], BuiltLayer]] = {
    "gzip": lambda: layer_of_tar(TAR),
    "gzip, many members": lambda: members(MIB // 2),
    "zstd": lambda: layer_of_tar(LONG_TAR, compression="zstd"),
    "zstd, many frames": lambda: frames(MIB),
    "tar": lambda: layer_of_tar(TAR, compression="none"),
}
by_compression = pytest.mark.parametrize("built", list(BUILDERS), indirect=True)
pytestmark = needs_root


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest) -> BuiltLayer:
    """A layer of FILES, compressed as the parameter says."""
    return BUILDERS[request.param]()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "size=3m") as disk:
        yield disk


@pytest.fixture
def served(disk: Path) -> Iterator[Served]:
    """A registry, and a cache on a disk that has no room for the layers of these tests."""
    with closing(Served(disk / "cache")) as served:
        yield served


def assert_right(shown: Shown) -> None:
    assert shown.names("app/1/rootfs") == ["d", "small"]
    for name, content in FILES.items():
        found = shown.read(f"app/1/rootfs/{name}")
        assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest(), name
    assert shown.read("app/1/rootfs/small") == b"small"


@by_compression
def test_a_layer_for_which_there_is_no_room_is_shown_and_read_and_that_is_said_once(
    served: Served, built: BuiltLayer
) -> None:
    served.push("app", "1", image_of(built))
    shown = served.show(limit=1 << 30)
    assert_right(shown)
    assert_right(shown)
    assert not list(served.cache.glob("layers/*.tar"))
    assert shown.read(".regfs/errors").count(b"is not kept") == 1
    assert shown.read(".regfs/errors").count(b"\n") == 1
    assert [str(problem) for problem in verify(served.cache, drop=False)] == []
    assert served.show(limit=1 << 30).names("app/1/rootfs/d") == sorted(name[2:] for name in FILES)


@by_compression
def test_a_file_costs_a_part_of_its_layer_where_the_layer_can_be_read_in_parts(
    served: Served, built: BuiltLayer
) -> None:
    served.push("app", "1", image_of(built))
    shown = served.show(limit=1 << 30)
    shown.names("app/1/rootfs")
    before = sum(shown.stats.value(name) for name in ("chunks.bytes", "chunks.streams"))
    assert shown.read("app/1/rootfs/d/03") == FILES["d/03"]
    streams, fetched = shown.stats.value("chunks.streams"), shown.stats.value("chunks.bytes")
    assert before == 0
    assert (streams, fetched > 0) in ((0, True), (1, False))
    assert fetched < len(built.blob) * 0.8
    assert shown.stats.value("layers.ingests") == 1


@by_compression
def test_once_there_is_room_what_is_read_is_kept_again(served: Served, built: BuiltLayer, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    served.push("app", "1", image_of(built))
    filler = disk / "of another program"
    filler.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 3 * MIB))
    with served.show(limit=1 << 30) as shown:
        assert_right(shown)
    filler.unlink()
    with served.show(limit=1 << 30) as shown:
        assert_right(shown)
    assert_right(served.show(offline=True, limit=1 << 30))


def test_what_is_to_be_here_whole_is_an_error_that_names_the_remedy(served: Served) -> None:
    served.push("app", "1", image_of(layer_of_tar(TAR)))
    shown = served.show(limit=1 << 30)
    repository = shown.repositories.repository(RepositoryName(shown.app.config.default_registry, "app"))
    image = shown.images.image(repository, repository.tags.resolve("1").digest)
    image.rootfs()
    with pytest.raises(CacheFull, match="--cache-dir"):
        image.complete()


@by_compression
def test_a_registry_that_gives_no_ranges_costs_no_answer_either(served: Served, built: BuiltLayer) -> None:
    served.push("app", "1", image_of(built))

    def refuse(right: Response) -> Response:
        return Response(416) if right.status == 206 else right

    served.server.on("GET", f"blobs/{built.digest}", changed(refuse))
    assert_right(served.show(limit=1 << 30))


@by_compression
def test_many_readers_of_a_layer_that_is_not_kept_get_right_bytes(served: Served, built: BuiltLayer) -> None:
    served.push("app", "1", image_of(built))
    shown = served.show(limit=1 << 30)
    shown.names("app/1/rootfs/d")
    wrong: list[str] = []

    def read(names: list[str]) -> None:
        wrong.extend(name for name in names if shown.read(f"app/1/rootfs/{name}") != FILES[name])

    orders = [random.Random(seed).sample(sorted(FILES), len(FILES)) for seed in range(6)]
    threads = [threading.Thread(target=read, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


@by_compression
def test_bytes_that_changed_since_the_names_were_read_are_never_shown(served: Served, built: BuiltLayer) -> None:
    served.push("app", "1", image_of(built))
    shown = served.show(limit=1 << 30)
    shown.names("app/1/rootfs/d")
    blob = bytearray(built.blob)
    for at in range(len(blob) // 3, len(blob), 100_000):
        blob[at] ^= 0x10
    served.registry.repository("app").blobs[str(built.digest)] = bytes(blob)
    failed = 0
    for name, content in FILES.items():
        try:
            assert shown.read(f"app/1/rootfs/{name}") == content
        except DigestMismatch:
            failed += 1
    assert failed


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_sparse_file_of_a_layer_that_is_not_kept_is_read_with_its_holes(served: Served, compression: str) -> None:
    size, extents = 12 * MIB, [(1000, 3), (70_000, 2), (5 * MIB - 7, 5 * MIB), (11 * MIB, 100_000), (12 * MIB, 0)]
    right = bytearray(size)
    for offset, length in extents:
        right[offset : offset + length] = BYTES.randbytes(length)
    pax = {"GNU.sparse.map": ",".join(f"{offset},{length}" for offset, length in extents).encode(),
           "GNU.sparse.size": b"%d" % size}  # fmt: skip
    stored = b"".join(right[offset : offset + length] for offset, length in extents)
    holes = {"GNU.sparse.map": b"", "GNU.sparse.size": b"70000"}
    tar = tar_of(
        file("before", b"before"), file("sparse", stored, pax=pax), file("holes", b"", pax=holes),
        file("big", FILES["d/03"] * 3),
    )  # fmt: skip
    served.push("app", "1", image_of(layer_of_tar(tar, compression=compression)))
    shown = served.show(limit=1 << 30)
    assert shown.attributes("app/1/rootfs/sparse").size == size
    assert shown.read("app/1/rootfs/sparse") == bytes(right)
    assert shown.read("app/1/rootfs/holes") == bytes(70_000)
    assert shown.read("app/1/rootfs/before") == b"before"
