"""The index of one layer: what is written is found again, and what is no index is told apart."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.errors import CacheFailure, NotFound
from regfs.model.attributes import Attributes
from regfs.store.layers.data_writer import DataLayout
from regfs.store.layers.layer_index import EntryFlag, LayerIndex, Row
from regfs.store.layers.layer_index_writer import LayerIndexWriter

DIRECTORY = Attributes(0o40755, size=4096, nlink=2).pack()
FILE = Attributes(0o100644, size=5).pack()


def row(number: int, parent: int, name: bytes, **columns: object) -> Row:
    plain = Row(number, parent, name, number, 0, FILE, 7, None, None)
    return plain._replace(**columns)  # type: ignore[arg-type]


LAYOUT = DataLayout("tar", 1000, 512, "ab" * 32)


def written(path: Path, *rows: Row) -> LayerIndex:
    writer = LayerIndexWriter(path)
    for each in rows:
        writer.add(each)
    writer.finish(LAYOUT)
    return LayerIndex.open(path)


ROOT = Row(0, 0, b"", 0, EntryFlag.IMPLIED, DIRECTORY, None, None, None)


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


def test_rows_are_found_by_name_number_and_parent(tmp_path: Path) -> None:
    second, first = row(1, 0, b"\xff"), row(2, 0, b"a", xattrs=b"x", target=b"t", content=512)
    index = written(tmp_path / "index", ROOT, second, first)
    assert index.lookup(0, b"a") == first
    assert index.lookup(0, b"b") is None
    assert index.row(1) == second
    assert index.children(0) == [first, second]
    assert list(index.by_directory()) == [first, second]
    assert index.row(0) == ROOT
    assert index.count() == 3
    with pytest.raises(NotFound):
        index.row(9)


def test_a_row_knows_its_path(tmp_path: Path) -> None:
    index = written(
        tmp_path / "index", ROOT, row(2, 1, b"\xff"), row(1, 3, b"b"), row(3, 0, b"a"), row(4, 5, b"x"), row(5, 4, b"y")
    )
    assert [index.path_of(number) for number in (0, 3, 1, 2)] == [b"", b"a", b"a/b", b"a/b/\xff"]
    assert index.path_of(4)  # which no layer that was ingested has: it comes to an end
    with pytest.raises(NotFound):
        index.path_of(9)


def test_a_hard_link_has_what_its_inode_has(tmp_path: Path) -> None:
    file = row(1, 0, b"file", content=5, xattrs=b"x")
    link = row(2, 0, b"link", inode=1, content=None, attributes=b"")
    index = written(tmp_path / "index", ROOT, file, link)
    found = index.lookup(0, b"link")
    assert found == file._replace(row=2, name=b"link")
    assert found is not None
    assert index.inode(found) == file
    assert list(index.by_directory())[1] == found == index.children(0)[1]


def test_the_files_that_follow_a_row_are_told_in_the_order_of_the_archive(tmp_path: Path) -> None:
    index = written(
        tmp_path / "index",
        ROOT,
        row(1, 0, b"z"),
        row(2, 0, b"directory", attributes=DIRECTORY, content=None),
        row(3, 2, b"y", content=20),
        row(4, 0, b"device", content=None),
        row(5, 2, b"x", content=30),
        row(6, 0, b"linked", inode=1),
        row(7, 0, b"w", content=40),
        row(90, 0, b"far", content=50),
    )
    assert index.following(1, 2) == [(3, FILE, 20), (5, FILE, 30)]
    assert index.following(5, 9) == [(7, FILE, 40)]
    assert index.following(90, 9) == []


def test_opening_wants_attributes_and_content_of_the_inode(tmp_path: Path) -> None:
    index = written(tmp_path / "index", ROOT, row(1, 0, b"file", content=5), row(2, 0, b"link", inode=1))
    assert index.stored(2) == index.stored(1) == (FILE, 5)
    with pytest.raises(NotFound):
        index.stored(3)


def test_rows_can_be_changed_before_the_index_is_finished(tmp_path: Path) -> None:
    writer = LayerIndexWriter(tmp_path / "index")
    for each in (ROOT, row(1, 0, b"gone"), row(2, 0, b"moved"), row(3, 0, b"d", flags=1), row(4, 0, b"other")):
        writer.add(each)
    writer.remove([1])
    writer.rename([(2, -1, b"2")])
    writer.add_flags([3], EntryFlag.OPAQUE)
    writer.set_nlinks([(3, 9)])
    writer.add(row(4, 0, b"other", content=99))
    writer.finish(LAYOUT)
    index = LayerIndex.open(tmp_path / "index")
    assert [each.name for each in index.by_directory()] == [b"d", b"other"]
    assert index.row(3).flags == EntryFlag.IMPLIED | EntryFlag.OPAQUE
    assert Attributes.unpack(index.row(3).attributes) == Attributes(0o100644, size=5, nlink=9)
    assert index.row(4).content == 99
    assert index.row(2).parent == -1


@pytest.mark.parametrize("count", [1, 139, 140, 141, 1400, 1541])
def test_files_and_chunks_are_found_again_however_many_there_are(tmp_path: Path, count: int) -> None:
    writer = LayerIndexWriter(tmp_path / "index")
    writer.add(ROOT)
    for number in range(1, count + 1):
        writer.add_file(number, 0, b"%05d" % number, FILE, 512 * number)
        writer.add_chunk((number, 512 * number, 5, number, 6, 7, _digest(number)))
        if number == 100:
            writer.add(row(50, 0, b"00050", content=512))  # takes the place of a file that may not be written yet
    writer.finish(LAYOUT)
    index = LayerIndex.open(tmp_path / "index")
    expected = [row(number, 0, b"%05d" % number, content=512 * number) for number in range(1, count + 1)]
    if count >= 100:
        expected[49] = row(50, 0, b"00050", content=512)
    assert index.children(0) == expected
    found = [(chunk.number, chunk.start, chunk.at, str(chunk.digest)) for chunk in index.chunks_by_place()]
    assert found == [(number, 512 * number, number, _digest(number)) for number in range(1, count + 1)]


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_what_is_no_index_is_a_cache_failure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(CacheFailure):
        LayerIndex.open(tmp_path / "index")


def test_an_index_of_another_version_is_a_cache_failure(tmp_path: Path) -> None:
    written(tmp_path / "index", ROOT).close()
    connection = sqlite3.connect(tmp_path / "index")
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    with pytest.raises(CacheFailure):
        LayerIndex.open(tmp_path / "index")


def test_a_missing_index_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        LayerIndex.open(tmp_path / "index")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheFailure):
        written(tmp_path / "index", ROOT, row(1, 0, b"a"), row(2, 0, b"a"))


def test_many_threads_may_ask_one_index(tmp_path: Path) -> None:
    rows = [row(n, 0, b"%d" % n) for n in range(1, 2001)]
    index = written(tmp_path / "strange ?#% name", ROOT, *rows)

    def look_up_all(_: int) -> bool:
        return all(index.lookup(0, each.name) == each for each in rows) and len(index.children(0)) == 2000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look_up_all, range(8)))


def test_an_index_says_what_its_data_file_holds(tmp_path: Path) -> None:
    layout = written(tmp_path / "index", ROOT).layout()
    assert layout == LAYOUT
    assert (layout.expanded_offset, layout.size) == (1024, 1536)


def test_expanded_files_get_their_place_when_the_tar_has_ended(tmp_path: Path) -> None:
    writer = LayerIndexWriter(tmp_path / "index")
    for each in (
        ROOT,
        row(1, 0, b"plain", content=512),
        row(2, 0, b"first", content=-1),
        row(3, 0, b"next", content=-513),
    ):
        writer.add(each)
    writer.place_expanded(LAYOUT.expanded_offset)
    writer.finish(LAYOUT)
    index = LayerIndex.open(tmp_path / "index")
    assert [index.row(number).content for number in (1, 2, 3)] == [512, 1024, 1536]
