"""Rot is found wherever it is, dropped, and what is fetched again is right; what is sound stays."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import regfs.store.verify
from regfs.model.digest import Digest
from regfs.store.blobs import BlobStore
from regfs.store.cached_files import open_file
from regfs.store.layer_store import LayerStore
from regfs.store.merged_index import MergedIndexWriter
from regfs.store.verify import verify
from tests.support.caches import file_row, keep_layer

LAYER, OTHER = Digest.of(b"layer"), Digest.of(b"other")
BIG = b"big" * 50_000
DOCUMENT = b'{"a": "document"}' * 100


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one thing of each kind, and a second layer."""
    keep_everything(tmp_path)
    return tmp_path


def keep_everything(root: Path) -> None:
    store = LayerStore(root)
    keep_layer(store, "layer", objects=[BIG], packed=b"small" * 1000)
    keep_layer(store, "other", packed=b"other" * 1000)
    writer = MergedIndexWriter(root / "images" / "chain.merged")
    writer.finish(0, b"a" * 80)
    writer.abandon()
    BlobStore(root / "blobs").keep(Digest.of(DOCUMENT), DOCUMENT)


def only(root: Path, pattern: str) -> Path:
    (path,) = root.glob(pattern)
    return path


PLACES: dict[str, Callable[[Path], Path]] = {
    "blob": lambda root: only(root, "blobs/sha256/*/*"),
    "object": lambda root: only(root, "objects/*/*"),
    "pack": lambda root: root / f"layers/{LAYER.encoded}.pack",
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

    monkeypatch.setattr(regfs.store.verify, "open_file", open_as_a_bad_disk)
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


@pytest.mark.parametrize("place", ["object", "pack", "layer sums", "merged sums"])
def test_what_is_missing_is_found(cache: Path, place: str) -> None:
    PLACES[place](cache).unlink()
    assert len(list(verify(cache, drop=True))) == 1
    assert LayerStore(cache).is_passed(LAYER) == (place == "merged sums")


def test_a_damaged_object_takes_its_layers_with_it(cache: Path) -> None:
    flip(PLACES["object"](cache))
    object_problem, layer_problem = verify(cache, drop=True)
    assert "its sha256 is" in str(object_problem)
    assert "is missing" in str(layer_problem)
    assert not LayerStore(cache).is_passed(LAYER)


def test_an_index_that_points_beside_its_files_is_found(cache: Path) -> None:
    store = LayerStore(cache)
    for name, content in (("beyond", 3), ("nowhere", b"\x00" * 32)):
        with store.begin_layer() as writer:
            writer.rows.add(file_row(0, 0, 0))
            writer.rows.add(file_row(1, 10, content))
            writer.pack(b"ten bytes.")
            store.publish(writer, Digest.of(name.encode()))
    assert sorted(problem.reason.split(":")[0] for problem in verify(cache, drop=True)) == ["wrong", "wrong"]


def test_a_file_that_has_no_digests_name_is_found(cache: Path) -> None:
    (cache / "blobs/sha256/ab").mkdir()
    (cache / "blobs/sha256/ab/notes.txt").write_text("mine")
    (problem,) = verify(cache, drop=False)
    assert "no digest" in str(problem)


def test_sums_are_what_sha256sum_reads(cache: Path) -> None:
    for sums in (f"layers/{LAYER.encoded}.sums", "images/chain.sums"):
        subprocess.run(["sha256sum", "--check", "--strict", sums], cwd=cache, check=True, capture_output=True)


def test_what_a_reader_has_open_when_it_is_dropped_is_read_on(cache: Path) -> None:
    store = LayerStore(cache)
    index = store.open_index(LAYER)
    flip(PLACES["pack"](cache))
    assert list(verify(cache, drop=True)) != []
    assert index.lookup(0, b"file1") is not None
