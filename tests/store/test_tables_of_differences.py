"""Where the tables of comparisons are, and how many are kept beside one image."""

from __future__ import annotations

import os
from pathlib import Path

from regfs.store.eviction.inventory import take_inventory
from regfs.store.images.tables_of_differences import KINDS, differing_path, drop_oldest, is_differing, sums_of


def test_tables_and_sums_lie_beside_the_image_that_they_are_evicted_with(tmp_path: Path) -> None:
    a, b = (tmp_path / "images" / f"{name * 64}.merged" for name in "ab")
    b.parent.mkdir()
    tables = [differing_path(kind, a, b) for kind in KINDS]
    for path in (b, *tables, *map(sums_of, tables)):
        path.touch()
    files = take_inventory(tmp_path).images
    assert list(files) == ["b" * 64]
    assert {suffix for suffix in files["b" * 64] if is_differing(suffix)} == {table.suffix for table in tables}
    assert len(files["b" * 64]) == 7


def test_those_used_longest_ago_go_where_there_are_too_many_and_other_kinds_and_images_stay(tmp_path: Path) -> None:
    b, others = tmp_path / f"{'b' * 64}.merged", [tmp_path / f"{number:064}.merged" for number in range(20)]
    for number, a in enumerate(others):
        for path in (differing_path("added", a, b), sums_of(differing_path("added", a, b))):
            path.touch()
            os.utime(path, ns=(number, number))
    stays = [differing_path("changed", others[0], b), differing_path("added", others[0], others[1])]
    for path in stays:
        path.touch()
    drop_oldest(differing_path("added", others[19], b))
    left = {path.name for path in tmp_path.glob("b*.added-*")}
    assert left == {differing_path("added", a, b).name for a in others[4:]}
    assert {path.name for path in tmp_path.glob("b*.sums-*")} == {
        sums_of(differing_path("added", a, b)).name for a in others[4:]
    }
    assert all(path.exists() for path in stays)
