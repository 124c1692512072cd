"""Whole blobs that the cache cannot take: each byte is verified before it is read, and there is no place to keep it."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from regfs.errors import DigestMismatch
from tests.support.artifacts import TITLE, archive, artifact_of, push_artifact
from tests.support.caches import tmpfs
from tests.support.fault_server import Response, changed
from tests.support.images import BuiltImage, BuiltLayer, file, image_of, layer_of_tar, tar_of
from tests.support.read_only import needs_root
from tests.support.served import Served

MIB = 1 << 20
CONTENT = random.Random(3).randbytes(13 * MIB + 12_345)
BIG = layer_of_tar(tar_of(file("big", CONTENT)), compression="none")
SMALL = layer_of_tar(tar_of(file("small", CONTENT[: 3 * MIB])))
pytestmark = needs_root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "size=2m") as disk:
        yield disk


@pytest.fixture
def served(disk: Path) -> Iterator[Served]:
    """A registry, and a cache on a disk that has no room for the blobs of these tests."""
    with closing(Served(disk / "cache")) as served:
        yield served


def push(served: Served) -> BuiltImage:
    return served.push("app", "1", image_of(BIG, SMALL))


def path_of(layer: BuiltLayer) -> str:
    return f"app/1/blobs/{layer.digest}"


def test_a_blob_for_which_there_is_no_room_is_read_and_that_is_said_once(served: Served) -> None:
    push(served)
    shown = served.show(limit=1 << 30)
    assert shown.read(path_of(BIG)) == BIG.blob
    assert shown.read(path_of(SMALL)) == SMALL.blob
    assert shown.read(path_of(BIG)) == BIG.blob
    assert shown.read(f"app/1/oci/blobs/sha256/{BIG.digest.encoded}") == BIG.blob
    assert shown.stats.value("blobs.measured") == 2
    assert shown.read(".regfs/errors").count(b"is not kept") == 1
    assert shown.read(".regfs/errors").count(b"\n") == 1


def test_a_part_of_a_blob_that_was_verified_costs_the_pieces_that_it_is_in(served: Served) -> None:
    push(served)
    shown = served.show(limit=1 << 30)
    with closing(shown.tree.open(shown.find(path_of(BIG)).node)) as opened:
        assert opened.read_at(9 * MIB, 100) == BIG.blob[9 * MIB :][:100]
        assert opened.read_at(len(BIG.blob) - 7, 100) == BIG.blob[-7:]
    assert shown.stats.value("chunks.bytes") == 4 * MIB + len(BIG.blob) % (4 * MIB)


def test_readers_of_a_blob_that_is_not_kept_share_the_transfer_that_verifies_it(served: Served) -> None:
    push(served)
    shown = served.show(limit=1 << 30)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(shown.read(path_of(BIG)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [content == BIG.blob for content in found] == [True] * 4
    assert shown.stats.value("blobs.measured") == 1


def test_a_registry_that_gives_no_ranges_gives_blobs_that_are_not_kept(served: Served) -> None:
    push(served)

    def refuse(right: Response) -> Response:
        return Response(416) if right.status == 206 else right

    served.server.on("GET", f"blobs/{BIG.digest}", changed(refuse))
    assert served.show(limit=1 << 30).read(path_of(BIG)) == BIG.blob


def test_wrong_bytes_of_a_blob_that_is_not_kept_are_never_read(served: Served) -> None:
    push(served)
    shown = served.show(limit=1 << 30)
    blobs = served.registry.repository("app").blobs
    wrong = bytearray(BIG.blob)
    wrong[9 * MIB] ^= 1
    blobs[str(BIG.digest)] = bytes(wrong)
    with pytest.raises(DigestMismatch):
        shown.read(path_of(BIG))
    blobs[str(BIG.digest)] = BIG.blob
    with closing(shown.tree.open(shown.find(path_of(BIG)).node)) as opened:
        blobs[str(BIG.digest)] = bytes(wrong)
        assert opened.read_at(0, 4 * MIB) == BIG.blob[: 4 * MIB]
        with pytest.raises(DigestMismatch):
            opened.read_at(9 * MIB, 1)


def test_once_there_is_room_a_blob_is_kept_again(served: Served, disk: Path) -> None:
    push(served)
    shown = served.show(limit=1 << 30)
    assert shown.read(path_of(BIG)) == BIG.blob
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    with closing(shown.tree.open(shown.find(path_of(BIG)).node)) as opened:
        fd = opened.backing_fd()
        assert fd is not None
        assert os.pread(fd, len(BIG.blob), 0) == BIG.blob


def test_the_files_of_an_artifact_for_which_there_is_no_room_are_read(served: Served) -> None:
    annotations = {TITLE: "model", "io.deis.oras.content.unpack": "true"}
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    blob = archive(file("model/weights", CONTENT[: 5 * MIB]), media_type=media_type, annotations=annotations)
    push_artifact(served.registry, "art", "1", artifact_of(blob))
    assert served.show(limit=1 << 30).read("art/1/files/model/weights") == CONTENT[: 5 * MIB]
