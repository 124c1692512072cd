"""Rot is found wherever it is, dropped, and what is fetched again is right; what is sound stays."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import regfs.store.files.cached_files
from regfs.model.digest import Digest
from regfs.store.blobs import BlobStore
from regfs.store.files.cached_files import open_file
from regfs.store.images.merged_table import MergedTableWriter
from regfs.store.layers.content import Span
from regfs.store.layers.layer_store import LayerStore
from regfs.store.verify import verify
from tests.support.caches import file_row, keep_layer

BIG = b"big" * 400_000
DATA = b"layer".ljust(512, b"\0") + b"small" * 1000 + bytes(120) + BIG + bytes(-len(BIG) % 512)
OTHER_DATA = b"other".ljust(512, b"\0") + b"other" * 1000 + bytes(120)
LAYER, OTHER = Digest.of(DATA), Digest.of(OTHER_DATA)
PROMOTED = Span(LAYER, 512 + 5120, len(BIG))
DOCUMENT = b'{"a": "document"}' * 100


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one thing of each kind, and a second layer."""
    keep_everything(tmp_path)
    return tmp_path


def keep_everything(root: Path) -> None:
    store = LayerStore(root)
    layer = keep_layer(store, "layer", files=[BIG], small=b"small" * 1000)
    keep_layer(store, "other", small=b"other" * 1000)
    assert layer == LAYER
    assert store.promotion.promote(PROMOTED)
    writer = MergedTableWriter(root / "images" / "chain.merged")
    writer.finish(0, b"a" * 80)
    writer.abandon()
    BlobStore(root / "blobs").keep(Digest.of(DOCUMENT), DOCUMENT)


def only(root: Path, pattern: str) -> Path:
    (path,) = root.glob(pattern)
    return path


PLACES: dict[str, Callable[[Path], Path]] = {
    "blob": lambda root: only(root, "blobs/sha256/*/*"),
    "promoted": lambda root: only(root, "objects/*/*/*"),
    "data": lambda root: root / f"layers/{LAYER.encoded}.tar",
    "index": lambda root: root / f"layers/{LAYER.encoded}.index",
    "layer sums": lambda root: root / f"layers/{LAYER.encoded}.sums",
    "merged": lambda root: root / "images/chain.merged",
    "merged sums": lambda root: root / "images/chain.sums",
}


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_looked_through(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = PLACES["blob"](cache)
    flip(PLACES["merged"](cache))

    def open_as_a_bad_disk(path: Path) -> int:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_file(path)

    monkeypatch.setattr(regfs.store.files.cached_files, "open_file", open_as_a_bad_disk)
    found = {problem.path: problem.reason for problem in verify(cache, drop=True)}
    assert found[bad] == "cannot be read: Input/output error"
    assert len(found) == 2
    assert not bad.exists()


def test_a_file_of_no_digests_name_is_told(cache: Path) -> None:
    stray = cache / "blobs/md5/d4/d41d8cd98f00b204e9800998ecf8427e"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    (problem,) = verify(cache, drop=True)
    assert problem.path == stray
    assert not stray.exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x04
    rewrite(path, bytes(content))


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit flipped": flip,
    "emptied": lambda path: rewrite(path, b""),
    "full of zeros": lambda path: rewrite(path, bytes(path.stat().st_size)),
    "cut": lambda path: rewrite(path, path.read_bytes()[:-10]),
    "grown": lambda path: rewrite(path, path.read_bytes() + b"x"),
}


def test_a_sound_cache_has_no_problems(cache: Path) -> None:
    assert list(verify(cache, drop=True)) == []
    assert list(verify(cache / "not there", drop=True)) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", PLACES)
def test_damage_anywhere_is_found_and_what_is_kept_again_is_right(cache: Path, place: str, damage: str) -> None:
    path = PLACES[place](cache)
    before = path.read_bytes()
    DAMAGES[damage](path)
    assert list(verify(cache, drop=False)) != []
    problems = list(verify(cache, drop=True))
    assert problems[0].path.stem == path.stem
    assert not path.exists()
    assert list(verify(cache, drop=True)) == []
    assert LayerStore(cache).is_whole(OTHER)
    keep_everything(cache)
    assert path.read_bytes() == before
    assert list(verify(cache, drop=True)) == []


@pytest.mark.parametrize("place", ["data", "layer sums", "merged sums"])
def test_what_is_missing_is_found(cache: Path, place: str) -> None:
    PLACES[place](cache).unlink()
    assert len(list(verify(cache, drop=True))) == 1
    assert LayerStore(cache).is_ingested(LAYER) == (place == "merged sums")


def test_a_damaged_copy_goes_alone_and_that_of_a_damaged_layer_with_it(cache: Path) -> None:
    flip(PLACES["promoted"](cache))
    (problem,) = verify(cache, drop=True)
    assert "it differs from" in str(problem)
    assert LayerStore(cache).is_whole(LAYER)
    assert LayerStore(cache).promotion.promote(PROMOTED)
    flip(PLACES["data"](cache))
    (problem,) = verify(cache, drop=True)
    assert "of the tar stream" in str(problem)
    assert list(cache.glob("objects/*/*/*")) == []


def test_an_index_that_points_beside_its_files_is_found(cache: Path) -> None:
    store = LayerStore(cache)
    for number, offset in enumerate((1024, 3, -512)):
        with store.begin_layer() as writer:
            writer.rows.add(file_row(0, 0, 0))
            writer.rows.add(file_row(1, 10, offset))
            writer.write(b"%d" % number * 1024)
            store.publish(writer, Digest.of(b"%d" % number * 1024))
    assert [problem.reason.split(":")[0] for problem in verify(cache, drop=True)] == ["wrong"] * 3


def test_a_file_that_has_no_digests_name_is_found(cache: Path) -> None:
    (cache / "blobs/sha256/ab").mkdir()
    (cache / "blobs/sha256/ab/notes.txt").write_text("mine")
    (problem,) = verify(cache, drop=False)
    assert "not a digest" in str(problem)


def test_sums_are_what_sha256sum_reads(cache: Path) -> None:
    for sums in (f"layers/{LAYER.encoded}.sums", "images/chain.sums"):
        subprocess.run(["sha256sum", "--check", "--strict", sums], cwd=cache, check=True, capture_output=True)


def test_what_a_reader_has_open_when_it_is_dropped_is_read_on(cache: Path) -> None:
    store = LayerStore(cache)
    index = store.open_index(LAYER)
    flip(PLACES["data"](cache))
    assert list(verify(cache, drop=True)) != []
    assert index.lookup(0, b"file1") is not None
