"""The ingest of a table of contents: whichever way its entries are read, the index is the same."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import BadLayer, TooLarge, Unsupported
from regfs.images.lazy.toc_ingest import ingest_table
from regfs.layers.formats.format import Chunk, FindTable, Format, Take
from regfs.layers.formats.recognise import recognise
from regfs.layers.formats.toc import Toc
from regfs.layers.source import ByteSource
from regfs.layers.tar.tar_reader import TarEntry
from regfs.model.cache_limits import Limits
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.store.layers.layer_store import LayerStore
from tests.support.images import BuiltLayer, directory, file, symlink
from tests.support.lazy_layers import Fields, descriptor_of, estargz, zstd_chunked

BUILDERS: dict[str, Callable[..., BuiltLayer]] = {
    "eStargz": estargz,
    "eStargz, inner offsets": partial(estargz, least_member=500),
    "zstd:chunked 2022": partial(zstd_chunked, generation="2022"),
    "zstd:chunked 2023": zstd_chunked,
    "zstd:chunked of stargz": partial(zstd_chunked, generation="stargz"),
}
LAYER = Digest.of(b"layer")


class OneByOne(Toc):
    """A table that shows no runs."""

    def entries(self, _take: Take | None = None) -> Iterator[tuple[TarEntry, tuple[Chunk, ...]]]:
        return super().entries()


class WithoutRuns:
    """A format whose tables show no runs."""

    def __init__(self, table_format: Format) -> None:
        self._format = table_format
        self.name = table_format.name

    def table(self, descriptor: Descriptor, source: ByteSource, find_table: FindTable) -> Toc:
        table = self._format.table(descriptor, source, find_table)
        assert isinstance(table, Toc)
        table.__class__ = OneByOne
        return table


def index_of(built: BuiltLayer, *, with_runs: bool) -> object:
    """Return rows and chunks of the index of *built*, and the remark; or the error that it brings."""
    descriptor = descriptor_of(built)
    found = recognise(descriptor)
    assert found is not None
    with tempfile.TemporaryDirectory() as root:
        store = LayerStore(Path(root), boot="", limits=Limits(), note=lambda _: None)
        try:
            remark = ingest_table(
                descriptor,
                layer=LAYER,
                table_format=found if with_runs else WithoutRuns(found),  # type: ignore[arg-type]
                part=lambda start, stop: built.blob[start:stop],
                store=store,
            )
        except (BadLayer, TooLarge, Unsupported):
            return "refused"
        with closing(sqlite3.connect(store.index_path(LAYER))) as index:
            tables = [index.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("entries", "chunks")]
    return *tables, remark


sizes = st.sampled_from([0, 1, 100, 999, 1000, 1001, 2500, 5000])
odd_values: st.SearchStrategy[object] = st.sampled_from(
    [None, True, 0, 1, 700, 1000, -1, 1 << 40, "", "1", "chunk", "sha256:" + "0" * 64, [], {}]
)
odd_keys = st.sampled_from(
    [
        "name",
        "type",
        "size",
        "mode",
        "offset",
        "endOffset",
        "digest",
        "chunkDigest",
        "chunkSize",
        "chunkOffset",
        "chunkType",
        "innerOffset",
        "xattrs",
    ]
)


@given(st.data(), st.sampled_from(sorted(BUILDERS)), st.lists(sizes, max_size=8), st.integers(0, 3))
def test_the_index_is_the_same_with_and_without_runs(
    data: st.DataObject, kind: str, lengths: list[int], odd: int
) -> None:
    def change(entries: list[Fields]) -> None:
        for _ in range(odd if entries else 0):
            entry = data.draw(st.sampled_from(entries))
            if data.draw(st.booleans()):
                entry[data.draw(odd_keys)] = data.draw(odd_values)
            else:
                entry.pop(data.draw(odd_keys), None)

    entries = [directory("d"), symlink("d/link", "0"), directory("e")]
    entries += [
        file(f"{'de'[number % 2]}/{number}", bytes([65 + number]) * size) for number, size in enumerate(lengths)
    ]
    built = BUILDERS[kind](*entries, chunk_size=1000, change=change)
    assert index_of(built, with_runs=True) == index_of(built, with_runs=False)


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_the_index_of_many_files_is_the_same_with_and_without_runs(build: Callable[..., BuiltLayer]) -> None:
    entries = [
        directory("d"),
        *(file(f"d/{number}", bytes([number % 256]) * (number % 7 * 500)) for number in range(900)),
    ]
    built = build(*entries, chunk_size=1000)
    assert index_of(built, with_runs=True) == index_of(built, with_runs=False)


def _without(key: str, kind: str) -> Callable[[list[Fields]], None]:
    def change(entries: list[Fields]) -> None:
        for entry in entries:
            if entry["type"] == kind and entry["name"] != "d/0":
                entry.pop(key, None)

    return change


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize(
    ("key", "kind"),
    [("chunkDigest", "reg"), ("chunkDigest", "chunk"), ("digest", "reg"), ("chunkOffset", "chunk"), ("size", "reg"),
     ("chunkSize", "reg"), ("chunkSize", "chunk"), ("offset", "chunk"), ("endOffset", "reg"), ("type", "chunk")],
)  # fmt: skip
@pytest.mark.parametrize("many", [3, 200])
def test_a_table_that_leaves_something_out_gives_one_index(
    build: Callable[..., BuiltLayer], key: str, kind: str, many: int
) -> None:
    """A digest of a file is none of its first chunk, and a chunk without a size ends where the file does."""
    entries = [directory("d"), *(file(f"d/{number}", os.urandom(1500 + 500 * number)) for number in range(3))]
    entries += [file(f"d/small{number}", b"a") for number in range(many)]
    built = build(*entries, chunk_size=1000, change=_without(key, kind))
    assert index_of(built, with_runs=True) == index_of(built, with_runs=False)
