"""What cannot be opened now, what is gone and what is damaged are three different things."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from regfs.errors import CacheDamaged, CacheFailure, NotFound
from regfs.store.files.failures import read_failure
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.layers.layer_store import LayerStore
from tests.support.caches import keep_layer
from tests.support.descriptors import no_descriptor_left


def merged(root: Path) -> Path:
    path = root / "chain.merged"
    writer = MergedTableWriter(path)
    writer.finish(0, b"a" * 80)
    writer.abandon()
    return path


def test_a_process_without_descriptors_takes_no_table_for_damaged(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer, path = keep_layer(store, "layer"), merged(tmp_path)
    with no_descriptor_left():
        for ask in (lambda: store.open_index(layer).row(0), lambda: MergedTable.open(path)):
            with pytest.raises(CacheFailure, match=r"Too many open files; ulimit -n") as failure:
                ask()
            assert not isinstance(failure.value, CacheDamaged)
    assert store.open_index(layer).row(0).row == 0
    assert MergedTable.open(path).root == 0


def test_a_process_without_descriptors_does_not_miss_the_files_of_a_layer(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer")
    with no_descriptor_left(), pytest.raises(CacheFailure, match="Too many open files"):
        store.is_whole(layer)
    assert store.is_whole(layer)


@pytest.mark.parametrize("content", [b"", b"torn" * 5000, bytes(8192)])
def test_a_torn_table_is_damaged_and_one_that_is_gone_is_not_there(tmp_path: Path, content: bytes) -> None:
    path = merged(tmp_path)
    path.write_bytes(content)
    with pytest.raises(CacheDamaged):
        MergedTable.open(path)
    path.unlink()
    with pytest.raises(NotFound):
        MergedTable.open(path)


@pytest.mark.parametrize("cut", [1, 4096])
def test_a_layer_index_that_was_cut_off_is_damaged(tmp_path: Path, cut: int) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer")
    path = store.index_path(layer)
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-cut])
    with pytest.raises(CacheDamaged):
        store.open_index(layer).row(0)


@pytest.mark.parametrize(
    ("code", "is_damaged"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_IOERR_READ, False),
        (sqlite3.SQLITE_IOERR, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_NOMEM, False),
        (sqlite3.SQLITE_BUSY, False),
    ],
)
def test_one_io_error_says_nothing_about_the_content(tmp_path: Path, code: int, is_damaged: bool) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    assert isinstance(read_failure(tmp_path, error), CacheDamaged) == is_damaged
    assert not isinstance(read_failure(tmp_path, MemoryError()), CacheDamaged)
