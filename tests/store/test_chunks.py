"""The map of a layer's chunks: what is marked is there, whatever was killed or crashed."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from regfs.errors import CacheDamaged, CacheFailure, CacheFull
from regfs.model.digest import Digest
from regfs.store.layers.chunk_map import ChunkMap, write_map
from regfs.store.layers.chunks import PartialData, StoredChunk
from regfs.store.layers.unkept_chunks import UnkeptChunks
from regfs.store.tables.open_tables import OpenTables
from tests.support.read_only import needs_root, read_only

BOOT, NEXT_BOOT = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
CONTENTS = [os.urandom(700), os.urandom(300)]
CHUNKS = [
    StoredChunk(0, 0, 700, 0, 10, 0, Digest.of(CONTENTS[0])),
    StoredChunk(1, 1024, 300, 10, 10, 0, Digest.of(CONTENTS[1])),
]


def opened(directory: Path, boot: str = BOOT) -> PartialData:
    return PartialData(directory / "data", directory / "map", boot=boot, reserve=lambda _: None)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """The directory of a layer none of whose chunks is here."""
    write_map(tmp_path / "map", len(CHUNKS), boot=BOOT)
    with (tmp_path / "data").open("wb") as data:
        data.truncate(1324)
    return tmp_path


def test_a_chunk_is_missing_until_it_is_kept(layer: Path) -> None:
    data = opened(layer)
    assert data.missing(CHUNKS) == CHUNKS
    data.keep(CHUNKS[1], CONTENTS[1])
    assert data.missing(CHUNKS) == CHUNKS[:1]
    assert not data.map.is_complete()
    data.keep(CHUNKS[0], CONTENTS[0])
    assert data.missing(CHUNKS) == []
    assert data.map.is_complete()
    assert (layer / "data").read_bytes() == CONTENTS[0].ljust(1024, b"\0") + CONTENTS[1]


def test_other_processes_see_what_is_kept(layer: Path) -> None:
    first, second = opened(layer), opened(layer)
    first.keep(CHUNKS[0], CONTENTS[0])
    assert second.missing(CHUNKS) == CHUNKS[1:]


def test_after_a_boot_chunks_are_hashed_before_they_are_believed(layer: Path) -> None:
    for chunk, content in zip(CHUNKS, CONTENTS, strict=True):
        opened(layer).keep(chunk, content)
    with (layer / "data").open("r+b") as data:  # what a crash can do: the map is on the disk, the bytes are not
        data.seek(CHUNKS[0].start)
        data.write(bytes(700))
    again = opened(layer, NEXT_BOOT)
    assert not again.map.is_complete()
    assert again.missing(CHUNKS) == CHUNKS[:1]
    assert again.map.is_here(1)
    assert not again.map.is_doubted(0)
    again.keep(CHUNKS[0], CONTENTS[0])
    assert opened(layer, NEXT_BOOT).missing(CHUNKS) == []


def test_what_was_kept_in_this_boot_is_not_doubted_by_another_daemon_of_it(layer: Path) -> None:
    old = opened(layer)
    old.keep(CHUNKS[0], CONTENTS[0])
    now = opened(layer, NEXT_BOOT)
    now.keep(CHUNKS[1], CONTENTS[1])
    assert opened(layer, NEXT_BOOT).map.is_here(1)


def test_nothing_is_marked_that_finds_no_room(layer: Path) -> None:
    def full(size: int) -> None:
        raise CacheFull(str(size))

    data = PartialData(layer / "data", layer / "map", boot=BOOT, reserve=full)
    with pytest.raises(CacheFull):
        data.keep(CHUNKS[0], CONTENTS[0])
    assert data.missing(CHUNKS) == CHUNKS


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 64, b"rgfc" + bytes(60), b"rgfc\1\0\0\0\7" + bytes(55)])
def test_a_torn_map_is_damaged(layer: Path, content: bytes) -> None:
    (layer / "map").write_bytes(content)
    with pytest.raises(CacheDamaged):
        ChunkMap(layer / "map", boot=BOOT)


def test_a_map_that_is_gone_is_not_found(layer: Path) -> None:
    (layer / "map").unlink()
    with pytest.raises(Exception, match="No such file"):
        opened(layer)


def test_a_chunk_that_cannot_be_written_is_held_and_said_once(layer: Path) -> None:
    def full(_: int) -> None:
        raise CacheFull("the disk is full")

    said: list[str] = []
    unkept = UnkeptChunks(said.append)
    data = PartialData(layer / "data", layer / "map", boot=BOOT, reserve=full, unkept=unkept)
    for chunk, content in zip(CHUNKS, CONTENTS, strict=True):
        data.keep_or_hold(chunk, content)
    assert data.missing(CHUNKS) == CHUNKS
    assert data.held(CHUNKS) == dict(zip(CHUNKS, CONTENTS, strict=True))
    assert (layer / "data").read_bytes() == bytes(1324)
    assert len(said) == 1
    assert "the disk is full" in said[0]


def test_no_more_is_held_than_the_bound_and_the_last_always() -> None:
    unkept = UnkeptChunks(lambda _: None, most=1000)
    for content in CONTENTS:
        unkept.hold(Digest.of(content), content, CacheFull("full"))
    big = os.urandom(5000)
    assert unkept.find(CHUNKS[0].digest) == CONTENTS[0]
    unkept.hold(Digest.of(big), big, CacheFull("full"))
    assert unkept.find(CHUNKS[0].digest) is None
    assert unkept.find(Digest.of(big)) == big


def test_chunks_that_were_read_on_a_full_disk_do_not_stay_in_memory(layer: Path) -> None:
    """Each was held by the traceback of the reason why it could not be kept: gigabytes after some hours."""
    unkept = UnkeptChunks(lambda _: None, most=1000)
    refusal = CacheFull("full")
    data = PartialData(layer / "data", layer / "map", boot=BOOT, reserve=print, unkept=unkept, refusal=refusal)
    tracemalloc.start()
    for number in range(50):
        data.keep_or_hold(CHUNKS[0]._replace(digest=Digest.of(b"%d" % number)), bytes(1 << 18))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 << 20


def test_what_is_held_is_dropped_when_it_is_not_read_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, now_s = OpenTables(), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    unkept = UnkeptChunks(lambda _: None, tables=tables)
    unkept.hold(CHUNKS[0].digest, CONTENTS[0], CacheFull("full"))
    tables.close_unused()
    now_s[0] += 60
    assert unkept.find(CHUNKS[0].digest) == CONTENTS[0]
    now_s[0] += 60
    for _ in range(2):
        tables.close_unused()
    assert unkept.find(CHUNKS[0].digest) is None


@needs_root
def test_a_layer_on_a_read_only_disk_gives_what_is_here_and_believes_no_other_boot(layer: Path) -> None:
    opened(layer).keep(CHUNKS[0], CONTENTS[0])
    with read_only(layer):
        data = opened(layer)
        assert data.missing(CHUNKS) == CHUNKS[1:]
        with pytest.raises(CacheFailure, match="Read-only"):
            data.keep(CHUNKS[1], CONTENTS[1])
        after_boot = opened(layer, NEXT_BOOT)
        assert not after_boot.map.is_here(0)
        assert after_boot.missing(CHUNKS) == CHUNKS[1:]
