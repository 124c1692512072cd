"""The loop over plain entries and the general readers come to the same rows, whatever the archive and its blocks."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from regfs.errors import BadLayer
from regfs.layers import ingest
from regfs.layers.ingest import Progress, read_layer
from regfs.layers.rows.plain_entries import PlainEntries
from regfs.model.layer_entry import Row
from tests.support.images import TarEntry, directory, file, hardlink, symlink, tar_of


class Rows:
    """A sink that remembers all that it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    @property
    def rows(self) -> Rows:
        return self

    def write(self, block: bytes | memoryview) -> None:
        pass

    def begin_expanded(self) -> Rows:
        raise AssertionError("no sparse files here")

    def add(self, row: Row) -> None:
        self.told.append(row)

    def add_file(self, row: int, parent: int, name: bytes, attributes: bytes, content: int) -> None:
        self.add(Row(row, parent, name, row, 0, attributes, content, None, None))

    def remove(self, rows: object) -> None:
        self.told.append(("remove", list(rows)))  # type: ignore[call-overload]

    rename = set_nlinks = remove

    def add_flags(self, rows: object, flags: int) -> None:
        self.told.append(("flags", list(rows), flags))  # type: ignore[call-overload]


def rows_of(tar: bytes, *, block: int) -> tuple[list[object] | str, int]:
    """Return what a sink was told, or why nothing came of it; and how many entries there were."""
    sink, progress = Rows(), Progress()
    blocks: Iterator[memoryview] = (memoryview(tar)[at : at + block] for at in range(0, len(tar), block))
    try:
        read_layer(blocks, sink, progress)  # type: ignore[arg-type]
    except BadLayer as error:
        return str(error), progress.entries
    return sink.told, progress.entries


def in_general(tar: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[list[object] | str, int]:
    """Return the same without the loop."""

    class Never(PlainEntries):
        def read(self) -> int:
            return 0

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "PlainEntries", Never)
        return rows_of(tar, block=1 << 20)


def entries_by_chance(chance: random.Random) -> list[TarEntry]:
    """Return entries over few names, so that they take each other's places and lead through each other."""
    names = ["a", "b", "c/d", "a/b", "a/b/c", "./a/x", "/b/y", "c//z", "a/../b/q", ".wh.a", "a/.wh.b", "a/.wh..wh..opq"]
    made: list[TarEntry] = []
    for _ in range(chance.randrange(1, 25)):
        name, kind = chance.choice(names), chance.randrange(6)
        mode = chance.choice([0o644, 0o4755])
        mtime_ns = chance.choice([0, 1_600_000_000, 8_000_000_000, -5]) * 10**9
        if kind < 2:
            made.append(file(name, b"x" * chance.choice([0, 1, 511, 512, 513, 5000]), mode=mode, mtime_ns=mtime_ns))
        elif kind < 4:
            made.append(directory(name, mode=mode, mtime_ns=mtime_ns))
        elif kind == 4:
            made.append(symlink(name, chance.choice(["a", "../b", "/c", "x" * 90])))
        else:
            made.append(hardlink(name, chance.choice(names)))
    return made


@pytest.mark.parametrize("seed", range(300))
def test_both_ways_to_read_an_archive_come_to_the_same_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    tar = tar_of(*entries_by_chance(chance))
    expected = in_general(tar, monkeypatch)
    for block in (512, 1024, 4608, 1 << 20):
        assert rows_of(tar, block=block) == expected


@pytest.mark.parametrize("seed", range(100))
def test_both_ways_refuse_the_same_damage(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    tar = bytearray(tar_of(*entries_by_chance(chance)))
    for _ in range(chance.randrange(1, 4)):
        tar[chance.randrange(len(tar))] = chance.randrange(256)
    damaged = bytes(tar[: chance.randrange(1, len(tar))] if seed % 3 == 0 else tar)
    expected = in_general(damaged, monkeypatch)
    for block in (512, 4608, 1 << 20):
        assert rows_of(damaged, block=block)[0] == expected[0]
