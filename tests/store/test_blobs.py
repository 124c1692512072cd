"""Blobs of the cache: nothing has a digest's name that is not those bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import CacheFailure, DigestMismatch, RegistryUnavailable
from regfs.model.digest import Digest
from regfs.model.verification import VerifiedChunks, verified
from regfs.store.blobs import BlobStore
from tests.support.caches import tmpfs

CONTENT = b"some bytes of a layer" * 1000
DIGEST = Digest.of(CONTENT)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def right(*chunks: bytes) -> VerifiedChunks:
    return verified(chunks, DIGEST, len(CONTENT))


def test_what_is_received_is_found_under_its_digest(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    path = store.receive(DIGEST, len(CONTENT), right(CONTENT[:100], CONTENT[100:]))
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "sha256" / DIGEST.encoded[:2] / DIGEST.encoded
    assert store.load(DIGEST, at_most=1 << 20) == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"X", b""],
    ids=["too short", "too long", "a flipped byte", "empty"],
)
def test_wrong_bytes_leave_nothing_behind(tmp_path: Path, wrong: bytes) -> None:
    with pytest.raises(DigestMismatch, match=DIGEST.encoded):
        BlobStore(tmp_path).receive(DIGEST, len(CONTENT), right(wrong))
    assert files(tmp_path) == []


def test_a_download_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT[:10]
        raise RegistryUnavailable("cut")

    with pytest.raises(RegistryUnavailable):
        BlobStore(tmp_path).receive(DIGEST, len(CONTENT), verified(chunks(), DIGEST, len(CONTENT)))
    assert files(tmp_path) == []


def test_an_endless_body_is_cut_off_at_the_size(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(DigestMismatch):
        BlobStore(tmp_path).receive(DIGEST, 5000, verified(endless(), DIGEST, 5000))
    assert taken == 5


def test_a_rotten_copy_is_dropped_not_served(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    path = store.receive(DIGEST, len(CONTENT), right(CONTENT))
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert store.load(DIGEST, at_most=1 << 20) is None
    assert not path.exists()


def test_a_cache_that_cannot_be_written_is_a_cache_failure(tmp_path: Path) -> None:
    (tmp_path / "sha256").write_text("in the way")
    with pytest.raises(CacheFailure, match="sha256"):
        BlobStore(tmp_path).receive(DIGEST, len(CONTENT), right(CONTENT))


def test_keeping_in_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "sha256").write_text("in the way")
    BlobStore(tmp_path).keep(DIGEST, CONTENT)


def test_who_has_a_dropped_blob_open_goes_on(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    fd = os.open(store.receive(DIGEST, len(CONTENT), right(CONTENT)), os.O_RDONLY)
    store.drop(DIGEST)
    assert os.read(fd, len(CONTENT)) == CONTENT
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs")
def test_what_a_full_disk_does_not_take_is_a_cache_failure_and_costs_documents_nothing(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m") as disk:
        store = BlobStore(disk / "blobs")
        room = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize))
        with pytest.raises(CacheFailure, match=r"No space left on device.*--cache-dir"):
            store.receive(DIGEST, len(CONTENT), right(CONTENT))
        store.keep(Digest.of(b"document"), b"document")
        assert files(disk) == [disk / "filler"]
