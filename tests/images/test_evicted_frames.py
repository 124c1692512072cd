"""Evicted bytes of plain zstd layers of several frames: they are fetched again frame by frame."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from regfs.errors import DigestMismatch
from regfs.model.names import RepositoryName
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.verify import verify
from tests.support.fault_server import Response, changed
from tests.support.images import BuiltLayer, compressed, directory, file, image_of, tar_of
from tests.support.served import Served
from tests.support.shown import Shown

MIB = 1 << 20
BYTES = random.Random(7)
FILES = {f"d/{number}": BYTES.randbytes(1_500_000) for number in range(8)}
TAR = tar_of(directory("d"), *(file(name, content) for name, content in FILES.items()), file("last", b"last"))
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY_FRAME = compressed(b"", "zstd")


def skippable(size: int) -> bytes:
    return struct.pack("<II", 0x184D2A50, size) + bytes(size)


def framed(size: int, *, between: bytes = b"", before: bytes = b"", tar: bytes = TAR) -> BuiltLayer:
    """Return the layer of *tar* in frames of *size* bytes each, with *between* behind each."""
    frames = [compressed(tar[at : at + size], "zstd") + between for at in range(0, len(tar), size)]
    return BuiltLayer(tar, before + b"".join(frames), ZSTD)


def evicted(served: Served, built: BuiltLayer) -> Served:
    """Push an image of the layer, read it whole, and evict its bytes."""
    served.push("app", "1", image_of(built))
    with served.show() as shown:
        assert shown.read("app/1/rootfs/last") == b"last"
    with served.show() as shown:
        shown.app.layers.budget.trim(1 << 20)
    assert not list(served.cache.glob("layers/*.tar"))
    return served


def blob_bytes(shown: Shown) -> float:
    return shown.stats.value("chunks.bytes")


@pytest.mark.parametrize(
    "build",
    [
        lambda: framed(MIB),
        lambda: framed(MIB + 12_345),
        lambda: framed(100_000),
        lambda: framed(2 * MIB, between=skippable(70_000)),
        lambda: framed(2 * MIB, between=EMPTY_FRAME, before=skippable(0) + EMPTY_FRAME),
    ],
    ids=["frames of a block", "odd frames", "small frames", "skippable frames", "empty frames"],
)
def test_a_file_of_an_evicted_layer_costs_its_frames_alone(served: Served, build: Callable[[], BuiltLayer]) -> None:
    built = build()
    evicted(served, built)
    shown = served.show()
    assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    assert 0 < blob_bytes(shown) < len(built.blob) / 2
    assert shown.stats.value("layers.ingests") == 0
    assert all(shown.read(f"app/1/rootfs/{name}") == content for name, content in FILES.items())
    assert shown.read("app/1/rootfs/last") == b"last"
    assert shown.stats.value("layers.ingests") == 0
    requests = shown.stats.value("chunks.requests")
    assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    assert shown.stats.value("chunks.requests") == requests
    assert [str(problem) for problem in verify(served.cache, drop=False)] == []


def test_what_was_fetched_again_is_there_for_the_next_daemon_and_offline(served: Served) -> None:
    evicted(served, framed(MIB))
    with served.show() as shown:
        assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    assert served.show(offline=True).read("app/1/rootfs/d/3") == FILES["d/3"]


def test_what_was_fetched_again_is_evicted_again(served: Served) -> None:
    evicted(served, framed(MIB))
    with served.show() as shown:
        assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    assert list(served.cache.glob("layers/*.parts"))
    with served.show() as shown:
        shown.app.layers.budget.trim(1 << 20)
    assert not list(served.cache.glob("layers/*.parts"))
    assert served.show().read("app/1/rootfs/d/3") == FILES["d/3"]


@pytest.mark.parametrize("damage", ["map", "cut", "bytes"])
def test_damage_to_what_was_fetched_again_is_found_and_never_read(served: Served, damage: str) -> None:
    evicted(served, framed(MIB))
    with served.show() as shown:
        assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    (path,) = served.cache.glob("layers/*.parts")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "map":
        path.write_bytes(content[:-100] + bytes(100))
    else:
        content[content.index(FILES["d/3"][:1000])] ^= 1
        path.write_bytes(content)
        assert len(list(verify(served.cache, drop=True))) == 1
    assert served.show().read("app/1/rootfs/d/3") == FILES["d/3"]


def test_a_wrong_frame_costs_the_files_in_it_alone(served: Served) -> None:
    built = framed(MIB)
    evicted(served, built)
    blob = bytearray(built.blob)
    blob[len(blob) // 2] ^= 1
    served.registry.repository("app").blobs[str(built.digest)] = bytes(blob)
    shown = served.show()
    right = [name for name in FILES if reads(shown, name)]
    assert 5 <= len(right) < len(FILES)


def reads(shown: Shown, name: str) -> bool:
    try:
        content = shown.read(f"app/1/rootfs/{name}")
    except DigestMismatch:
        return False
    assert content == FILES[name]
    return True


def test_where_no_ranges_are_given_the_layer_is_read_whole_and_once(served: Served) -> None:
    built = framed(MIB)
    evicted(served, built)

    def refuse(right: Response) -> Response:
        return Response(416) if right.status == 206 else right

    served.server.on("GET", f"blobs/{built.digest}", changed(refuse))
    shown = served.show()
    assert all(shown.read(f"app/1/rootfs/{name}") == content for name, content in FILES.items())
    assert shown.stats.value("chunks.whole_layers") == 1


@pytest.mark.parametrize(
    "built",
    [framed(len(TAR)), framed(33 * MIB, tar=TAR + bytes(60 * MIB))],
    ids=["one frame", "frames too big for memory"],
)
def test_a_layer_without_frames_of_a_useful_size_is_fetched_whole(served: Served, built: BuiltLayer) -> None:
    evicted(served, built)
    (path,) = served.cache.glob("layers/*.index")
    assert list(LayerIndex.open(path).chunks_by_place()) == []
    shown = served.show()
    assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    assert shown.stats.value("layers.ingests") == 1


def test_the_spans_of_one_blob_are_not_taken_from_another_blob_of_the_same_archive(served: Served) -> None:
    evicted(served, framed(MIB))
    other = framed(2 * MIB + 1)
    served.push("other", "1", image_of(other))
    shown = served.show()
    assert shown.read("other/1/rootfs/d/3") == FILES["d/3"]
    assert shown.read("app/1/rootfs/d/5") == FILES["d/5"]


def test_a_whole_layer_takes_the_place_of_what_was_fetched_again(served: Served) -> None:
    evicted(served, framed(MIB))
    shown = served.show()
    assert shown.read("app/1/rootfs/d/3") == FILES["d/3"]
    repository = shown.repositories.repository(RepositoryName(shown.app.config.default_registry, "app"))
    image = shown.images.image(repository, repository.tags.resolve("1").digest)
    image.complete()
    assert list(served.cache.glob("layers/*.tar"))
    assert not list(served.cache.glob("layers/*.parts"))
    assert shown.read("app/1/rootfs/d/5") == FILES["d/5"]
