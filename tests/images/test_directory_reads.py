"""A small file brings others of its directory, and of directories of that name; one file alone brings nothing."""

from __future__ import annotations

import os

import pytest

from regfs.errors import Offline
from regfs.images.lazy.chunk_read_ahead import SMALL
from regfs.images.lazy.directory_reads import MAX_WHOLE
from regfs.store.layers.layer_index import LayerIndex
from tests.images.test_lazy_layers import join_threads
from tests.support.images import TarEntry, directory, file, image_of
from tests.support.lazy_layers import estargz
from tests.support.served import Served
from tests.support.shown import Shown

PACKAGES = ("a", "b", "c")
LARGE = 9


def between(name: str) -> list[TarEntry]:
    """Return what keeps the directories around it from being one range of the blob."""
    return [directory(f"{name}/src"), file(f"{name}/src/large", os.urandom(SMALL + 100_000))]


LAYER = estargz(
    *(
        entry
        for name in PACKAGES
        for entry in (
            directory(name),
            directory(f"{name}/lib"),
            *(file(f"{name}/lib/{number}", os.urandom(2000)) for number in range(3)),
            *between(name),
        )
    ),
    directory("large"),
    *(file(f"large/{number}", os.urandom(MAX_WHOLE // 8)) for number in range(LARGE)),
)


@pytest.fixture
def shown(served: Served) -> Shown:
    served.push("app", "1", image_of(LAYER))
    return served.show(rest_from=1.0)


def here(served: Served) -> set[str]:
    """Return the files that the cache has."""
    offline, found = served.show(offline=True), set[str]()
    paths = [f"{name}/lib/{number}" for name in PACKAGES for number in range(3)]
    for path in [*paths, *(f"{name}/src/large" for name in PACKAGES), *(f"large/{number}" for number in range(LARGE))]:
        try:
            offline.read(f"app/1/rootfs/{path}")
            found.add(path)
        except Offline:
            pass
    return found


def test_one_small_file_brings_nothing_and_the_next_its_directory_and_those_of_that_name(
    served: Served, shown: Shown
) -> None:
    shown.read("app/1/rootfs/a/lib/1")
    join_threads("flight ")
    assert here(served) == {"a/lib/1"}
    shown.read("app/1/rootfs/b/lib/1")
    join_threads("flight ")
    assert here(served) == {"a/lib/1", "b/lib/0", "b/lib/1", "b/lib/2"}
    shown.read("app/1/rootfs/a/lib/0")  # now two directories are called lib
    join_threads("flight ")
    assert here(served) == {f"{name}/lib/{number}" for name in PACKAGES for number in range(3)}


def test_a_large_directory_does_not_come_as_a_whole(served: Served, shown: Shown) -> None:
    shown.read("app/1/rootfs/a/lib/1")
    shown.read("app/1/rootfs/large/4")
    join_threads("flight ")
    assert 1 <= len([path for path in here(served) if path.startswith("large")]) <= 3


def test_the_index_finds_the_directory_of_a_file_by_the_place_of_its_bytes(served: Served, shown: Shown) -> None:
    shown.read("app/1/rootfs/a/lib/1")
    [path] = served.cache.glob("layers/*.index")
    index = LayerIndex.open(path)
    for row, _ in index.files():
        content, parent = index.row(row).content, index.row(row).parent
        assert content is not None
        assert index.directory_of(content) == parent
    assert index.directory_of(1 << 40) is None
