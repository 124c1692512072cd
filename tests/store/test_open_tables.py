"""One bound for what is open: what was not used lately is closed, never under a user, and comes back when asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.errors import CacheDamaged, CacheFailure
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.layers.data_files import DataFiles
from regfs.store.layers.layer_store import LayerStore
from regfs.store.tables.open_tables import OpenTables
from tests.support.caches import keep_layer
from tests.support.descriptors import open_files


class Entry:
    """Something that is open until it is closed, unless it is busy."""

    def __init__(self) -> None:
        self.recent = False
        self.is_open = True
        self.is_busy = False

    def close_if_idle(self) -> bool:
        self.is_open = self.is_busy
        return not self.is_busy


def written(path: Path) -> Path:
    writer = MergedTableWriter(path)
    writer.finish(0, b"a" * 80)
    writer.abandon()
    return path


@pytest.mark.parametrize("kind", ["descriptors", "size", "trees"])
def test_no_more_is_open_than_the_bound_allows(kind: str) -> None:
    tables = OpenTables(**{"descriptors": 100, "size": 100, "trees": 100, kind: 3})
    entries = [Entry() for _ in range(10)]
    for entry in entries:
        tables.add(entry, **{kind: 1})
    assert [entry.is_open for entry in entries] == [False] * 7 + [True] * 3


def test_what_was_used_lately_stays_and_what_was_not_goes() -> None:
    tables = OpenTables(descriptors=3)
    entries = [Entry() for _ in range(3)]
    for entry in entries:
        tables.add(entry, descriptors=1)
        entry.recent = False
    entries[0].recent = True
    tables.add(newest := Entry(), descriptors=1)
    assert [entry.is_open for entry in (*entries, newest)] == [True, False, True, True]


def test_what_a_thread_is_using_is_not_closed_whatever_the_bound() -> None:
    tables = OpenTables(descriptors=2)
    busy = [Entry() for _ in range(4)]
    for entry in busy:
        entry.is_busy = True
        tables.add(entry, descriptors=1)
    assert all(entry.is_open for entry in busy)
    assert tables.descriptors == 4
    busy[0].is_busy = False
    tables.add(Entry(), descriptors=1)
    assert not busy[0].is_open


def test_what_nothing_refers_to_any_more_counts_no_more() -> None:
    tables = OpenTables(size=100)
    kept = [Entry() for _ in range(5)]
    for entry in kept:
        tables.add(entry, descriptors=1, size=10)
    del entry
    del kept[1:]
    assert (tables.descriptors, tables.size) == (1, 10)
    tables.add(kept[0], descriptors=1, size=30)
    assert (tables.descriptors, tables.size) == (1, 30)


def test_what_is_not_used_between_two_looks_is_closed() -> None:
    tables, used, unused = OpenTables(), Entry(), Entry()
    for entry in (used, unused):
        tables.add(entry, descriptors=1)
    tables.close_unused()
    assert used.is_open
    assert unused.is_open
    used.recent = True
    tables.close_unused()
    assert (used.is_open, unused.is_open, tables.descriptors) == (True, False, 1)


def test_a_small_limit_of_open_files_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 256))
    tables = OpenTables()
    entries = [Entry() for _ in range(200)]
    for entry in entries:
        tables.add(entry, descriptors=1)
    assert tables.descriptors == 64


def test_tables_that_threads_take_from_each_other_answer_right_all_the_same(tmp_path: Path) -> None:
    tables = OpenTables(descriptors=3)
    paths = [written(tmp_path / f"{number}.merged") for number in range(8)]
    merged = [MergedTable(path, tables=tables) for path in paths]
    most = 0

    def ask(number: int) -> int:
        nonlocal most
        most = max(most, tables.descriptors)
        return merged[number % 8].root + len(merged[number % 8].children(0, 9))

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(3000))) == {0}
    assert most <= 3 + 6  # each thread opens one before others are closed
    tables.close_idle()
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


def test_a_table_is_not_closed_while_its_rows_are_being_read(tmp_path: Path) -> None:
    tables = OpenTables(descriptors=1)
    store = LayerStore(tmp_path, tables=tables)
    index = store.open_index(keep_layer(store, "one", files=[b"1" * 100_000]))
    rows = index.by_directory()
    first = next(rows)
    store.open_index(keep_layer(store, "other")).row(0)
    tables.close_idle()
    assert [first, *rows] == [index.row(1), index.row(2)]
    tables.close_idle()
    assert index.row(0).row == 0


def test_a_table_that_is_gone_is_made_again_and_else_a_failure_but_no_missing_name(tmp_path: Path) -> None:
    path, tables = written(tmp_path / "chain.merged"), OpenTables()
    made: list[CacheFailure] = []

    def make_again(failure: CacheFailure) -> None:
        made.append(failure)
        written(path)

    lasting = MergedTable(path, tables=tables, make_again=make_again)
    lost = MergedTable(path, tables=tables)
    assert lasting.root == lost.root == 0
    tables.close_idle()
    path.unlink()
    with pytest.raises(CacheFailure):
        lost.lookup(0, b"name")
    assert lasting.lookup(0, b"name") is None
    assert len(made) == 1
    assert lost.lookup(0, b"name") is None


def test_a_table_that_proves_damaged_when_it_is_read_is_made_again(tmp_path: Path) -> None:
    path = written(tmp_path / "chain.merged")
    made: list[CacheFailure] = []

    def make_again(failure: CacheFailure) -> None:
        made.append(failure)
        path.unlink()
        written(path)

    merged = MergedTable(path, tables=OpenTables(), make_again=make_again)
    merged.open_now()
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert merged.lookup(0, b"name") is None
    assert [type(failure) for failure in made] == [CacheDamaged]


def test_a_pack_is_closed_when_others_need_its_place_and_its_readers_have_gone(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, tables=OpenTables(descriptors=2))
    layers = [keep_layer(store, f"layer {number}") for number in range(4)]
    files = DataFiles(store.data_path, store.tables)
    reader = files.open(layers[0])
    for layer in layers[1:]:
        files.open(layer)
    assert files.find(layers[0]) is None
    opened = [name for name in open_files() if name.endswith(".tar") and name.startswith(str(tmp_path))]
    assert len(opened) == 3
    assert reader.size == 1024
    del reader
    assert data_path(tmp_path, layers[0].encoded) not in open_files()


def data_path(root: Path, name: str) -> str:
    return str(root / "layers" / f"{name}.tar")


def test_the_garbage_collector_may_end_an_entry_at_any_instant() -> None:
    tables, errors = OpenTables(descriptors=5), list[BaseException]()

    def churn() -> None:
        try:
            for _ in range(2000):
                entry = Entry()
                entry.itself = entry  # type: ignore[attr-defined]  # a circle: the collector ends it, whenever it runs
                tables.add(entry, descriptors=1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert 0 <= tables.descriptors <= 5
