"""What is in a cache, and what it takes: in little memory, however many files there are."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from regfs.store.eviction.inventory import take_inventory, used_by
from regfs.store.layers.content import Span
from regfs.store.layers.layer_store import LayerStore
from tests.support.caches import keep_layer


def test_the_sum_is_that_of_the_parts(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    assert used_by(tmp_path / "none") == used_by(tmp_path) == 0
    keep_layer(store, "one", files=[b"1" * 300_000])
    layer = keep_layer(store, "other", files=[b"1" * 300_000, b"2" * 300_000])
    store.promotion.promote(Span(layer, 1024, 300_000))
    with store.begin_layer() as writer:
        writer.write(b"1" * (2 << 20))
        found = take_inventory(tmp_path)
        assert used_by(tmp_path) == found.size >= 1_200_000 + (2 << 20)
    assert found.counts() == {"blobs": 0, "objects": 1, "layers": 2, "images": 0, "under way": 3}
    assert [file.name for file in found.promoted(layer.encoded)] == ["1024-300000"]
    assert all(file.path.is_file() for files in found.layers.values() for file in files.values())


def test_to_look_how_much_there_is_takes_no_memory_for_each_file(tmp_path: Path) -> None:
    directory = tmp_path / "blobs/sha256/00"
    directory.mkdir(parents=True)
    for number in range(3000):
        (directory / f"{number:064}").touch()
    tracemalloc.start()
    try:
        used_by(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000
