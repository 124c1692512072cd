"""The merged table: what was written is found again, and what is no whole table of ours is told apart."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.errors import CacheFailure, NotFound
from regfs.model.attributes import Attributes
from regfs.model.node_id import node_key
from regfs.store.files.cached_files import put
from regfs.store.images import merged_table
from regfs.store.images.merged_table import MergedDirectory, MergedTable, MergedTableWriter
from regfs.store.verify import verify

DIRECTORY = Attributes(0o40755, size=4096, nlink=2).pack()
FILE = Attributes(0o100644, size=5).pack()
ROOT, SUB, EMPTY = node_key(1, 0), node_key(0, 3), node_key(0, 9)
LEAF = node_key(2, 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table: /empty/, /sub/leaf, /sub/other."""
    destination = tmp_path / "images" / "chain.merged"
    writer = MergedTableWriter(destination)
    connection = sqlite3.connect(writer.path)
    rows = [
        (ROOT, b"empty", EMPTY, DIRECTORY), (ROOT, b"sub", SUB, DIRECTORY),
        (SUB, b"leaf", LEAF, FILE), (SUB, b"other", LEAF, FILE),
    ]  # fmt: skip
    connection.executemany("INSERT INTO entries (parent, name, node, attributes) VALUES (?, ?, ?, ?)", rows)
    connection.execute("INSERT INTO links VALUES (?, ?)", (LEAF, FILE))
    connection.commit()
    connection.close()
    writer.finish(ROOT, DIRECTORY)
    return destination


def test_names_are_found_and_listed(path: Path) -> None:
    index = MergedTable.open(path)
    assert index.root == ROOT
    assert index.lookup(SUB, b"leaf") == (LEAF, FILE)
    assert index.lookup(ROOT, b"leaf") is None
    sub = index.directory(SUB)
    assert sub is not None
    assert index.children(sub.first, sub.first + sub.size) == [(b"leaf", LEAF, FILE), (b"other", LEAF, FILE)]
    assert index.children(sub.first + 1, sub.first + 2) == [(b"other", LEAF, FILE)]


def test_directories_are_known_by_their_nodes(path: Path) -> None:
    index = MergedTable.open(path)
    assert index.directory(EMPTY) == MergedDirectory(ROOT, 0, 0, DIRECTORY)
    assert index.directory(ROOT) == MergedDirectory(ROOT, 1, 2, DIRECTORY)
    assert index.directory(LEAF) is None
    assert (index.link(LEAF), index.link(SUB)) == (FILE, None)


def test_nothing_but_the_table_and_its_sums_is_left_in_its_directory(path: Path) -> None:
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, path.with_suffix(".sums").name]


def test_an_abandoned_table_is_removed(tmp_path: Path) -> None:
    writer = MergedTableWriter(tmp_path / "merged")
    writer.abandon()
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        MergedTable.open(tmp_path / "merged")


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")


def other_application(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 1")


def without_root(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM meta")


@pytest.mark.parametrize(
    "spoil",
    [
        other_version,
        other_application,
        without_root,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no database" * 999),
        lambda path: path.write_bytes(path.read_bytes()[:-4096]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    ],
    ids=["version", "application", "no root", "empty", "garbage", "cut", "longer"],
)
def test_what_is_no_whole_table_is_a_cache_failure(path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    spoil(path)
    with pytest.raises(CacheFailure):
        MergedTable.open(path)


def test_a_table_that_breaks_while_it_is_open_is_a_cache_failure(path: Path) -> None:
    index = MergedTable.open(path)
    size = path.stat().st_size
    path.write_bytes(b"\xff" * size)
    with pytest.raises(CacheFailure):
        [index.lookup(SUB, b"leaf"), index.children(0, 9), index.directory(SUB), index.link(LEAF)]


def test_a_table_goes_on_answering_when_its_file_is_removed(path: Path) -> None:
    index = MergedTable.open(path)
    path.unlink()
    assert index.lookup(SUB, b"leaf") == (LEAF, FILE)


def test_any_thread_may_ask(path: Path) -> None:
    index = MergedTable.open(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: index.lookup(SUB, b"leaf"), range(500)))
    assert set(found) == {(LEAF, FILE)}


def test_a_closed_table_is_opened_again_by_a_question_while_its_file_is_there(path: Path) -> None:
    index = MergedTable.open(path)
    index.close()
    assert index.lookup(ROOT, b"sub") is not None
    index.close()
    path.unlink()
    with pytest.raises(CacheFailure, match="not in the cache"):  # and never that there is no such name
        index.lookup(ROOT, b"sub")


def test_a_place_that_cannot_be_written_is_a_cache_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheFailure):
        MergedTableWriter(tmp_path / "file" / "merged")


def test_a_table_that_is_being_finished_is_not_dropped_by_verify_for_want_of_its_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "images" / "chain.merged"
    found = list[object]()
    verifying = threading.Thread(target=lambda: found.extend(verify(tmp_path, drop=True)))

    def renamed(source: Path, destination: Path) -> None:
        put(source, destination)
        if not verifying.ident:
            verifying.start()
            verifying.join(0.3)  # between the two names: it waits until there are both

    finish(path, b"b" * 80)
    monkeypatch.setattr(merged_table, "put", renamed)
    finish(path, b"a" * 80)
    verifying.join()
    assert found == []
    assert path.exists()
    assert path.with_suffix(".sums").exists()


def finish(path: Path, attributes: bytes) -> None:
    """Write a table of a root directory alone."""
    writer = MergedTableWriter(path)
    writer.finish(0, attributes)
    writer.abandon()
