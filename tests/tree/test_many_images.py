"""What an image costs that the kernel remembers: no descriptor, no space in the cache, and hardly any memory."""

from __future__ import annotations

import gc
import os
import random
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import regfs
from regfs.errors import WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.store.eviction.inventory import take_inventory
from regfs.store.tables.open_tables import OpenTables
from tests.support.descriptors import open_files
from tests.support.images import BuiltLayer, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown

MIB = 1 << 20


def fill(number: int) -> bytes:
    return bytes([number + 1])


def layers_of(number: int, *, count: int = 3, size: int = 20) -> list[BuiltLayer]:
    return [layer(file(f"f{own}", fill(number) * size), file(f"own-{number}-{own}")) for own in range(count)]


def push_images(served: Served, images: int, **more: int) -> None:
    for number in range(images):
        served.push("app", str(number), image_of(*layers_of(number, **more)))


def files_of_cache(served: Served) -> list[str]:
    return [name for name in open_files() if name.startswith(f"{served.cache}/") and ".sqlite" not in name]


def test_visiting_images_opens_no_more_tables_than_the_bound_however_many_there_are(served: Served) -> None:
    push_images(served, 20, count=6)
    shown = served.show(tables=OpenTables(descriptors=12))
    for number in [*range(20), *random.Random(1).choices(range(20), k=60)]:
        for own in (0, 5):
            assert shown.read(f"app/{number}/rootfs/f{own}") == fill(number) * 20
        # And one for the file that says what is in use.
        assert len(files_of_cache(served)) <= 12 + 1
    assert (shown.stats.value("layers.ingests"), shown.stats.value("images.merges")) == (120, 20)


def test_an_image_has_the_same_nodes_and_numbers_after_its_table_was_closed(served: Served) -> None:
    push_images(served, 6)
    shown = served.show(tables=OpenTables(trees=2, descriptors=4))
    paths = [f"app/{number}/rootfs/f{own}" for number in range(6) for own in range(3)]
    before = {path: shown.find(path) for path in paths}
    for path in random.Random(1).sample(paths, k=len(paths)):
        assert shown.tree.attributes(before[path].node) == before[path]
        assert shown.find(path) == before[path]
        opened = shown.tree.open(before[path].node)
        assert opened.read_at(0, 100) == fill(int(path.split("/")[1])) * 20
        opened.close()


def test_threads_that_visit_more_images_than_may_be_open_read_what_is_right(served: Served) -> None:
    push_images(served, 8)
    shown = served.show(tables=OpenTables(trees=2, descriptors=3, size=MIB))
    paths = [(number, own) for number in range(8) for own in range(3)] * 20
    random.Random(1).shuffle(paths)

    def read(place: tuple[int, int]) -> bool:
        number, own = place
        return shown.read(f"app/{number}/rootfs/f{own}") == fill(number) * 20

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, paths))
    assert shown.stats.value("layers.ingests") == 24


def test_walking_large_images_one_after_the_other_gives_the_memory_of_the_first_back(served: Served) -> None:
    for number in range(5):
        files = [file(f"d{each % 20}/some-file-{each:04}", b"%d %d" % (number, each)) for each in range(2000)]
        served.push("app", str(number), image_of(layer(*files)))
    shown = served.show(tables=OpenTables(size=MIB))

    def walk(number: int) -> None:
        root = shown.find(f"app/{number}/rootfs").node
        for directory in shown.tree.listing(root).entries(0, 1 << 20):
            for entry in shown.tree.listing(directory.node).entries(0, 1 << 20):
                shown.tree.lookup(directory.node, entry.name)

    walk(0)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, 5):
            walk(number)
        gc.collect()
        # The registry of the test and what pytest keeps are in this process, too.
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, f"{Path(regfs.__file__).parent}/*")])
    finally:
        tracemalloc.stop()
    grown = sum(trace.size for trace in ours.traces)
    assert grown < MIB  # of Python's objects; 600 KiB an image before they were bounded


def test_what_the_kernel_merely_remembers_does_not_keep_its_space_in_the_cache(served: Served) -> None:
    push_images(served, 12, count=1, size=MIB)
    shown = served.show(limit=4 * MIB)
    for number in range(12):
        assert shown.read(f"app/{number}/rootfs/f0") == fill(number) * MIB
        assert take_inventory(served.cache).size <= 5 * MIB
    assert shown.read("app/0/rootfs/f0") == fill(0) * MIB  # fetched again
    assert shown.stats.value("layers.ingests") == 13


def test_an_image_of_which_a_file_is_open_is_not_evicted(served: Served) -> None:
    push_images(served, 6, count=1, size=MIB)
    shown = served.show(limit=4 * MIB)
    opened = shown.tree.open(shown.find("app/0/rootfs/f0").node)
    for number in range(1, 6):
        assert shown.read(f"app/{number}/rootfs/f0") == fill(number) * MIB
    ingests = shown.stats.value("layers.ingests")
    with under(NON_BLOCKING):  # it is all here
        assert shown.read("app/0/rootfs/own-0-0") == b""
        assert opened.read_at(0, 9) == fill(0) * 9
    opened.close()
    assert shown.stats.value("layers.ingests") == ingests == 6


def test_an_image_is_read_beside_open_ones_that_fill_the_cache(served: Served) -> None:
    push_images(served, 3, count=1, size=3 * MIB)
    shown = served.show(limit=5 * MIB)
    opened = shown.tree.open(shown.find("app/0/rootfs/f0").node)
    assert shown.read("app/1/rootfs/f0") == fill(1) * 3 * MIB
    assert opened.read_at(0, 9) == fill(0) * 9
    opened.close()


def let_all_go(shown: Shown) -> None:
    shown.tables.close_idle()


def test_tables_that_were_deleted_while_they_were_closed_are_made_again(served: Served) -> None:
    push_images(served, 1)
    shown = served.show()
    node = shown.find("app/0/rootfs").node
    before = shown.tree.lookup(node, b"f1")
    opened = shown.tree.open(before.node)  # it keeps the tree
    let_all_go(shown)
    for name in ("layers", "images", "objects"):
        shutil.rmtree(served.cache / name, ignore_errors=True)
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.lookup(node, b"f2")
    assert shown.tree.lookup(node, b"f1") == before
    assert shown.read("app/0/rootfs/f2") == fill(0) * 20
    assert (shown.stats.value("layers.ingests"), shown.stats.value("images.merges")) == (6, 2)
    opened.close()


@pytest.mark.parametrize("pattern", ["layers/*.index", "images/*.merged"])
def test_a_table_that_rots_while_it_is_in_use_is_made_again(served: Served, pattern: str) -> None:
    push_images(served, 1, count=1)
    shown = served.show()
    node = shown.find("app/0/rootfs/f0").node
    opened = shown.tree.open(node)
    let_all_go(shown)
    for table in served.cache.glob(pattern):
        table.chmod(0o644)
        table.write_bytes(table.read_bytes()[:100] + os.urandom(table.stat().st_size - 100))
    assert shown.read("app/0/rootfs/f0") == fill(0) * 20
    assert shown.tree.attributes(node).attributes == shown.find("app/0/rootfs/f0").attributes
    opened.close()


def test_what_a_deleted_cache_lacks_is_fetched_for_what_is_asked_and_no_more(served: Served) -> None:
    push_images(served, 4, count=2)
    shown = served.show()
    nodes = [shown.find(f"app/{number}/rootfs/f0").node for number in range(4)]
    for entry in Path(served.cache).iterdir():
        shutil.rmtree(entry) if entry.is_dir() else None
    shown.tree.open(nodes[2]).close()
    assert shown.stats.value("layers.ingests") <= 8 + 2  # of that image's layers
