"""The digests of the files of a layer are kept, found again, and never believed where they may be wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from regfs.store.eviction.budget import Budget
from regfs.store.layers import content_digests
from regfs.store.layers.content_digests import ContentDigests, read_digests
from regfs.store.layers.layer_index import VERSION


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer.digests"


def keep(path: Path, *offsets: int) -> None:
    digests = ContentDigests(path)
    for offset in offsets:
        digests.add(offset, digest(offset))
    digests.keep(Budget(path.parent))


def test_what_was_kept_is_found_by_its_offset_and_nothing_else(path: Path) -> None:
    keep(path, 5120, 512, 1 << 40)
    kept = ContentDigests(path)
    assert [kept.find(offset) for offset in (512, 5120, 1 << 40)] == [digest(at) for at in (512, 5120, 1 << 40)]
    assert [kept.find(offset) for offset in (0, 511, 513, 1 << 41)] == [None] * 4


def test_what_another_process_has_kept_meanwhile_stays(path: Path) -> None:
    mine = ContentDigests(path)
    keep(path, 512)
    mine.add(1024, digest(1024))
    mine.keep(Budget(path.parent))
    assert [ContentDigests(path).find(offset) for offset in (512, 1024)] == [digest(512), digest(1024)]


@pytest.mark.parametrize("size", [0, 10, 39, 40, 100])
def test_a_torn_file_has_nothing(path: Path, size: int) -> None:
    keep(path, 512, 1024)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    assert read_digests(path) is None
    path.write_bytes(bytes(len(content)))
    assert read_digests(path) is None
    assert ContentDigests(path).find(512) is None
    keep(path, 1024)
    assert ContentDigests(path).find(1024) == digest(1024)


def test_digests_for_an_index_of_another_version_are_of_no_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(path, 512)
    monkeypatch.setattr(content_digests, "VERSION", VERSION + 1)
    assert read_digests(path) is None


def test_nothing_is_written_where_nothing_was_added(path: Path) -> None:
    keep(path)
    assert not path.exists()
