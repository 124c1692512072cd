"""The budget of the cache: the limit holds, what is in use stays, and no crash or second process gets in the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.errors import CacheFull
from regfs.model.cache_limits import Limits, MinFree
from regfs.model.digest import Digest
from regfs.model.verification import verified
from regfs.store.blobs import BlobStore
from regfs.store.eviction.budget import Budget
from regfs.store.eviction.eviction import evict
from regfs.store.eviction.in_use import Uses
from regfs.store.eviction.inventory import take_inventory, used_by
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.layers.content import Span
from regfs.store.layers.layer_store import LayerStore
from regfs.store.verify import verify
from tests.store.filled_store import big, kept_merged, names_of, needs_root, run_python, whole
from tests.support.caches import MIB, keep_layer, size_of, tmpfs, used_before
from tests.support.descriptors import open_files

# The limit.


def test_the_limit_holds_and_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(4 * MIB))
    layers = []
    for number in range(8):
        layers.append(keep_layer(store, f"layer {number}", files=[big(number)]))
        used_before(store.index_path(layers[-1]), 100 - number)  # clocks of file systems tick every 4 ms
        assert size_of(tmp_path) <= 4 * MIB
    assert names_of(store, layers) == [5, 6, 7]
    assert all(store.is_whole(layer) for layer in layers[5:])


def test_what_was_opened_lately_outlives_what_was_written_later(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(100 * MIB))
    layers = [keep_layer(store, f"layer {number}", files=[big(number)]) for number in range(4)]
    for number, layer in enumerate(layers):
        used_before(store.index_path(layer), 100 - number)
    store.open_index(layers[1])
    store.budget.trim(2 * MIB + MIB // 2)
    assert names_of(store, layers) == [1, 3]


def test_blobs_and_merged_tables_go_by_their_use_too(tmp_path: Path) -> None:
    blobs, budget = BlobStore(tmp_path / "blobs"), Budget(tmp_path)
    content = big(1)
    for fill in range(3):
        blobs.receive(Digest.of(big(fill)), MIB, whole(big(fill)))
        used_before(blobs.path(Digest.of(big(fill))), 100 - fill)
    merged = kept_merged(tmp_path)
    used_before(merged, 1000)
    assert blobs.load(Digest.of(content), at_most=1 << 20) == content
    budget.trim(MIB + 4096)
    assert [blobs.path(Digest.of(big(fill))).exists() for fill in range(3)] == [False, True, False]
    assert not merged.exists()
    assert not merged.with_suffix(".sums").exists()


def test_promoted_files_go_before_anything_else(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layers = [keep_layer(store, name, files=[big(number)]) for number, name in enumerate(("old", "new"))]
    used_before(store.index_path(layers[0]), 1000)
    promoted = [Span(layer, 1024, MIB) for layer in layers]
    assert [store.promotion.promote(span) for span in promoted] == [True, True]
    store.budget.trim(4 * MIB)
    assert names_of(store, layers) == [0, 1]
    assert len(take_inventory(tmp_path).objects) == 1
    store.budget.trim(2 * MIB)
    assert names_of(store, layers) == [1]
    assert take_inventory(tmp_path).objects == []


def test_nothing_is_evicted_for_a_promotion(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(3 * MIB))
    layer = keep_layer(store, "layer", files=[big(1)])
    assert not store.promotion.promote(Span(layer, 1024, MIB))
    assert store.is_whole(layer)
    assert take_inventory(tmp_path).objects == []


def test_what_is_promoted_of_a_layer_goes_with_it(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[big(1)])
    store.promotion.promote(Span(layer, 1024, MIB))
    index = os.fspath(store.index_path(layer))
    evicted = evict(tmp_path, chosen=lambda unit: os.fspath(unit.guard.path) == index, only_say=True)
    assert evicted.left == 0
    assert evict(tmp_path, chosen=lambda unit: os.fspath(unit.guard.path) == index) == evicted
    assert size_of(tmp_path) == 0


def test_what_the_disk_has_no_room_for_is_refused_before_it_is_fetched_and_evicts_nothing(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(4 * MIB))
    layer = keep_layer(store, "layer", files=[big(1)])
    blobs = BlobStore(tmp_path / "blobs", reserve=store.budget.reserve)
    huge = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize

    def chunks() -> Iterator[bytes]:
        pytest.fail("it was fetched")
        yield b""

    with pytest.raises(CacheFull, match=r"--cache-dir"):
        blobs.receive(Digest.of(b"huge"), huge, verified(chunks(), Digest.of(b"huge"), huge))
    with pytest.raises(CacheFull, match=r"--cache-dir"), store.begin_layer(huge):
        pytest.fail("it was begun")
    assert store.is_whole(layer)


def test_a_layer_bigger_than_the_limit_is_taken_and_told_once(tmp_path: Path) -> None:
    notes: list[str] = []
    store = LayerStore(tmp_path, limits=Limits(4 * MIB), note=notes.append)
    small = keep_layer(store, "small", files=[big(8)])
    layer = keep_layer(store, "layer", files=[big(number) for number in range(7)])
    assert store.is_whole(layer)
    assert not store.is_ingested(small)
    (note,) = notes
    assert str(tmp_path) in note
    assert "in use, limit 4.0 MiB" in note
    assert "--cache-size" in note


def test_the_documents_of_an_image_outlive_the_ingest_of_its_layers(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(4 * MIB))
    config = b"{}"
    blobs = BlobStore(tmp_path / "blobs", reserve=store.budget.reserve)
    blobs.receive(Digest.of(config), len(config), whole(config))
    layer = keep_layer(store, "layer", files=[big(number) for number in range(7)])
    assert store.is_whole(layer)
    assert blobs.load(Digest.of(config), at_most=1 << 20) == config


def test_what_exceeds_the_limit_goes_once_it_was_not_used_for_a_while(tmp_path: Path) -> None:
    is_told = threading.Event()
    store = LayerStore(tmp_path, limits=Limits(4 * MIB))
    budget = Budget(tmp_path, limits=Limits(4 * MIB), note=lambda _: is_told.set(), lately_s=0.2)
    layer = keep_layer(store, "layer", files=[big(number) for number in range(7)])
    index = store.open_index(layer)
    budget.reserve(MIB)
    assert is_told.is_set()
    time.sleep(0.3)  # so long it was not touched; what is open stays all the same
    assert store.is_whole(layer)
    index.close()
    end = time.monotonic() + 60
    while store.is_ingested(layer) or size_of(tmp_path) > 4 * MIB:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_blob_of_the_size_of_the_limit_takes_the_place_of_all_others(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(4 * MIB))
    keep_layer(store, "layer", files=[big(1)])
    content = big(9, 4 * MIB)
    blobs = BlobStore(tmp_path / "blobs", reserve=store.budget.reserve)
    blobs.receive(Digest.of(content), len(content), whole(content))
    assert size_of(tmp_path) == 4 * MIB


def test_a_limit_of_nothing_keeps_what_is_open_or_was_used_lately(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(0))
    layers = [keep_layer(store, f"layer {number}", files=[big(number)]) for number in range(3)]
    for layer in layers[:2]:
        used_before(store.index_path(layer), 1000)
    index = store.open_index(layers[0])
    used_before(store.index_path(layers[0]), 1000)
    LayerStore(tmp_path, limits=Limits(0)).budget.reserve(1)
    assert names_of(store, layers) == [0, 2]
    index.close()
    store.budget.trim()
    assert size_of(tmp_path) == 0


def test_a_lowered_limit_holds_after_the_next_start(tmp_path: Path) -> None:
    keep_layer(LayerStore(tmp_path), "layer", files=[big(1), big(2)])
    LayerStore(tmp_path, limits=Limits(MIB)).budget.trim()
    assert 0 < size_of(tmp_path) < MIB  # names stay
    LayerStore(tmp_path, limits=Limits(1)).budget.trim()
    assert size_of(tmp_path) == 0


def test_content_goes_before_the_names_of_what_was_used_on_the_same_day(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layers = [keep_layer(store, f"layer {number}", files=[big(number)]) for number in range(3)]
    ages_s = (3 * 86400, 3600, 60)
    for layer, age_s in zip(layers, ages_s, strict=True):
        used_before(store.index_path(layer), age_s)
    store.budget.trim(MIB // 2)
    assert names_of(store, layers) == []
    assert [store.has_names(layer) for layer in layers] == [False, True, True]
    assert list(verify(tmp_path, drop=False)) == []


@needs_root
def test_the_default_is_a_tenth_of_the_disk_however_full_that_is(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=20m") as disk:
        budget = Budget(disk)
        assert budget.effective_limit() == 2 * MIB
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 18 * MIB)
        assert budget.effective_limit() == 2 * MIB


def test_the_default_is_never_more_than_ten_gibibytes(tmp_path: Path) -> None:
    assert 0 < Budget(tmp_path).effective_limit() <= 10 << 30


# Use.


def test_a_layer_that_is_open_keeps_all_its_files(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[big(1)])
    index = store.open_index(layer)
    assert store.budget.trim(0) == 0
    assert store.is_whole(layer)
    del index
    store.budget.trim(0)
    assert not store.is_ingested(layer)


def test_a_merged_table_that_is_in_use_stays(tmp_path: Path) -> None:
    path = kept_merged(tmp_path)
    uses = Uses(tmp_path)
    merged = MergedTable(path, use=uses.announce(path))
    Budget(tmp_path).trim(0)
    assert merged.root == 0
    merged.close()
    Budget(tmp_path).trim(0)
    assert size_of(tmp_path) == 0


def test_a_merged_table_opens_though_its_writer_has_not_let_go(tmp_path: Path) -> None:
    writer = MergedTableWriter(tmp_path / "images/chain.merged")
    writer.finish(0, b"a" * 80)
    assert MergedTable.open(tmp_path / "images/chain.merged").root == 0
    writer.abandon()


def test_with_everything_in_use_more_is_taken_while_the_disk_has_room(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(4 * MIB))
    layer = keep_layer(store, "layer", files=[big(1), big(2)])
    index = store.open_index(layer)
    more = keep_layer(store, "more", files=[big(3), big(4)])
    assert store.is_whole(layer)
    assert store.is_whole(more)
    index.close()
    keep_layer(store, "other", files=[big(5), big(6)])
    assert size_of(tmp_path) <= 5 * MIB


HOLDING = """
import sys
from pathlib import Path
from regfs.model.digest import Digest
from regfs.store.layers.layer_store import LayerStore
index = LayerStore(Path(sys.argv[1])).open_index(Digest.parse(sys.argv[2]))
print("open", flush=True)
sys.stdin.read()
"""


def test_another_process_keeps_what_it_has_open_until_it_dies(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[big(1)])
    with run_python(HOLDING, tmp_path, str(layer)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        store.budget.trim(0)
        assert store.is_whole(layer)
        other.kill()
    store.budget.trim(0)
    assert size_of(tmp_path) == 0


def test_a_file_that_is_being_read_is_read_to_its_end(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[big(1)])
    store.promotion.promote(Span(layer, 1024, MIB))
    contents = [store.open_content(Span(layer, 512, 5)), store.open_content(Span(layer, 1024, MIB))]
    assert contents[1].backing_fd() is not None
    store.budget.trim(0)
    assert size_of(tmp_path) == 0
    assert contents[0].read_at(0, 5) == b"small"
    assert contents[1].read_at(0, MIB) == big(1)


def test_an_evicted_data_file_is_let_go_with_its_index(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer")
    index = store.open_index(layer)
    store.open_content(Span(layer, 512, 5)).close()
    data = os.fspath(store.data_path(layer))
    assert data in open_files()
    del index
    assert data not in open_files()


# How full it is.


def test_how_full_the_cache_is_is_known_without_a_walk_at_each_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path, limits=Limits(100 * MIB))
    walks: list[Path] = []

    def walk(root: Path) -> int:
        walks.append(root)
        return used_by(root)

    monkeypatch.setattr("regfs.store.eviction.budget.used_by", walk)
    budget = store.budget
    first = budget.standing(wait_s=60)
    assert first is not None
    assert (first.used, first.limit) == (0, 100 * MIB)
    assert 0 < first.free <= 100 * MIB
    assert [budget.standing() for _ in range(1000)] == [first] * 1000
    assert len(walks) == 1
    keep_layer(store, "layer", files=[big(1)])
    after = budget.standing()
    assert after is not None
    assert after.used >= MIB
    budget.trim(0)
    emptied = budget.standing()
    assert emptied is not None
    assert emptied.used == 0


def test_how_full_the_cache_is_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = threading.Event()
    monkeypatch.setattr("regfs.store.eviction.budget.used_by", lambda root: (slow.wait(60), used_by(root))[1])
    budget = Budget(tmp_path, limits=Limits(MIB))
    assert budget.standing() is None
    slow.set()
    assert budget.standing(wait_s=60) is not None


def test_what_other_daemons_wrote_is_seen_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(tmp_path, limits=Limits(100 * MIB))
    assert budget.standing(wait_s=60) is not None
    keep_layer(LayerStore(tmp_path), "of another daemon", files=[big(1)])
    monkeypatch.setattr("regfs.store.eviction.budget._FRESH_S", 0.0)
    end = time.monotonic() + 60
    while (found := budget.standing()) is None or found.used < MIB:
        assert time.monotonic() < end
        time.sleep(0.01)


# What else the user allows.


@needs_root
def test_the_room_that_stays_free_can_be_chosen(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=40m") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB, MinFree(size=20 * MIB)))
        for number in range(8):
            layer = keep_layer(store, f"layer {number}", files=[big(number, 4 * MIB)])
            assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= 20 * MIB
        assert store.is_whole(layer)
        standing = store.budget.standing(wait_s=60)
        assert standing is not None
        assert standing.min_free == 20 * MIB
        # Others fill the disk; what the cache can give up, it gives up.
        (disk / "of another program").write_bytes(bytes(16 * MIB))
        store.budget.keep()
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= 20 * MIB
        # Where it cannot give up enough, it keeps what it has.
        kept = take_inventory(disk).size
        (disk / "more of it").write_bytes(bytes(16 * MIB))
        store.budget.keep()
        assert take_inventory(disk).size == kept


def test_what_was_not_used_for_long_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(100 * MIB, max_age_s=3600.0))
    layers = [keep_layer(store, f"layer {number}", files=[big(number)]) for number in range(3)]
    for layer in layers[:2]:
        used_before(store.index_path(layer), 7200)
    held = store.index(layers[0])
    used_before(store.index_path(layers[0]), 7200)
    store.budget.keep()
    assert names_of(store, layers) == [0, 2]
    del held
    store.budget.trim()
    assert names_of(store, layers) == [2]


def test_what_was_used_before_the_clock_was_set_back_does_not_outlive_all_others(tmp_path: Path) -> None:
    """Until that time came again it stayed, and with it no room for anything new."""
    store = LayerStore(tmp_path, limits=Limits(100 * MIB))
    layers = [keep_layer(store, f"layer {number}", files=[big(number)]) for number in range(3)]
    used_before(store.index_path(layers[0]), -10 * 365 * 24 * 3600)
    store.budget.trim()  # it is used now
    for layer in layers[1:]:
        used_before(store.index_path(layer), -30)
    store.budget.trim(2 * MIB + MIB // 2)
    assert [store.is_whole(layer) for layer in layers] == [False, True, True]


def test_a_clock_that_jumps_ten_years_forward_evicts_nothing_by_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All went at once."""
    store = LayerStore(tmp_path, limits=Limits(100 * MIB, max_age_s=3600.0))
    layers = [keep_layer(store, f"layer {number}", files=[big(number)]) for number in range(2)]
    used_before(store.index_path(layers[1]), 7200)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 10 * 365 * 24 * 3600 * 10**9)
    store.budget.keep()
    assert names_of(store, layers) == [0]  # the other one was too old in any case
