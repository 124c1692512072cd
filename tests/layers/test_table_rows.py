"""The quick way to add plain entries: whatever comes in whatever order, it makes the rows of the slow one."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import BadLayer
from regfs.layers.rows.archive_rows import ArchiveRows
from regfs.layers.rows.table_rows import TableRows
from regfs.layers.tar.tar_reader import HARD_LINK, TarEntry
from tests.layers.tables import Rows, rows_of

NAMES = [b"a", b"b", b".wh.a", b".wh..wh..opq", b".", b"..", b"", b"n" * 256]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(b"/".join)
KINDS = st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, HARD_LINK])
ENTRIES = st.builds(
    TarEntry,
    path=PATHS,
    kind=KINDS,
    mode=st.sampled_from([0o644, 0o4755]),
    uid=st.sampled_from([0, 1000]),
    gid=st.just(0),
    size=st.sampled_from([0, 700]),
    mtime_ns=st.sampled_from([0, 1_500_000_000]),
    link=PATHS,
    rdev=st.just(0),
    xattrs=st.sampled_from([None, {b"user.a": b"1"}]),
    extents=st.none(),
)


def rows(entries: list[TarEntry], kind: type[ArchiveRows]) -> Rows | str:
    try:
        return rows_of(entries, kind)
    except BadLayer as error:
        return str(error)


@given(st.lists(ENTRIES, max_size=12))
def test_the_rows_are_those_of_the_slow_way(entries: list[TarEntry]) -> None:
    assert rows(entries, TableRows) == rows(entries, ArchiveRows)
