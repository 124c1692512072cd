"""Names that are asked for one by one are read all at once, and mean the same as before."""

from __future__ import annotations

from collections import Counter

import pytest

from regfs.rootfs.directory_cache import DirectoryCache
from regfs.store.images.merged_table import MergedDirectory
from regfs.store.tables.open_tables import OpenTables


class Table:
    """Directories 0, 1, 2 …, each with *size* names `0`, `1` …; counts how often each was read whole."""

    def __init__(self, size: int, tables: OpenTables | None = None) -> None:
        self.size = size
        self.read: Counter[int] = Counter()
        self.cache = DirectoryCache(self, tables or OpenTables())

    def directory(self, node: int) -> MergedDirectory | None:
        return None if node < 0 else MergedDirectory(0, node * 10_000, self.size, b"")

    def is_shared(self, node: int) -> bool:
        return False

    def children(self, node: int, start: int, limit: int, directory: MergedDirectory) -> list[tuple[bytes, int, bytes]]:
        assert (start, limit) == (0, directory.size)
        self.read[node] += 1
        return [(b"%d" % at, directory.first + at, b"attributes") for at in range(limit)]

    def questions_until_read(self, directory: int, *, at_most: int) -> int:
        """Ask about *directory* until it is read whole; return how many questions that took."""
        for number in range(1, at_most + 1):
            if self.cache.names(directory) is not None:
                return number
        return at_most + 1


@pytest.mark.parametrize(("size", "questions"), [(1, 4), (32, 4), (100, 13), (4096, 512)])
def test_a_directory_is_read_whole_once_an_eighth_of_it_was_asked_for(size: int, questions: int) -> None:
    table = Table(size)
    assert table.questions_until_read(7, at_most=1000) == questions
    assert all(table.cache.names(7) is not None for _ in range(100))
    assert table.read == {7: 1}


def test_what_was_read_has_every_name_and_no_other() -> None:
    table = Table(20)
    assert table.questions_until_read(3, at_most=20) == 4
    names = table.cache.names(3)
    assert names is not None
    assert (names[b"19"], b"20" in names, len(names)) == ((30_019, b"attributes"), False, 20)


def test_a_huge_directory_is_asked_name_by_name() -> None:
    table = Table(4097)
    assert table.questions_until_read(0, at_most=9000) == 9001
    assert table.read == {}


def test_only_so_many_names_are_kept() -> None:
    table = Table(1000)
    for directory in range(100):
        table.questions_until_read(directory, at_most=1000)
    assert set(table.read.values()) == {1}
    kept = [directory for directory in range(100) if directory in table.cache._known]
    assert 1 <= len(kept) <= 16
    assert 99 in kept


def test_directories_that_are_hardly_asked_are_not_counted_for_ever() -> None:
    table = Table(1000)
    for directory in range(100_000):
        assert table.cache.names(directory) is None
    assert len(table.cache._asked) <= 4097


def test_a_file_is_no_directory_however_often_it_is_asked() -> None:
    table = Table(5)
    assert [table.cache.names(-1) for _ in range(9)] == [None] * 9


def test_what_is_remembered_counts_and_is_given_back() -> None:
    tables = OpenTables(size=1 << 20)
    caches = [Table(1000, tables) for _ in range(20)]
    for table in caches:
        table.questions_until_read(7, at_most=1000)
        assert tables.size <= 1 << 20
    remembered = [table for table in caches if table.cache._known]
    assert 1 <= len(remembered) < 5
    assert caches[-1] in remembered
    assert caches[0].questions_until_read(7, at_most=1000) > 1
    assert caches[0].cache.names(7) is not None
