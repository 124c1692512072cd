"""The layers of the cache: visible first, durable after, and clean again after a crash."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from regfs.errors import CacheFailure, NotFound
from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from regfs.store.eviction.inventory import take_inventory
from regfs.store.layers.content import Nothing, Span
from regfs.store.layers.layer_index import LayerIndex, Row
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.unsettled_layers import UnsettledLayers
from regfs.store.locks.file_locks import lock_new
from tests.support.descriptors import no_descriptor_left

BIG = b"big" * 50_000
ROOT = Row(0, 0, b"", 0, 1, Attributes(0o40755).pack(), None, None, None)
STREAM = b"small".ljust(512, b"\0") + BIG + bytes(-len(BIG) % 512)
LAYER, OTHER = Digest.of(STREAM), Digest.of(STREAM + b"other")


def keep(store: LayerStore, *, other: bytes = b"") -> None:
    with store.begin_layer() as writer:
        writer.rows.add(ROOT)
        writer.write(STREAM)
        writer.write(other)
        store.publish(writer, Digest.of(STREAM + other))


@contextmanager
def opened(store: LayerStore) -> Iterator[LayerStore]:
    yield store
    store.close()


def files_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_published_layer_is_found_and_read(tmp_path: Path) -> None:
    with opened(LayerStore(tmp_path)) as store:
        assert not store.is_ingested(LAYER)
        with pytest.raises(NotFound):
            store.open_index(LAYER)
        keep(store)
        assert store.is_ingested(LAYER)
        assert store.open_index(LAYER).row(0) == ROOT
        assert store.open_content(Span(LAYER, 0, 5)).read_at(0, 10) == b"small"
        assert store.open_content(Span(LAYER, 512, len(BIG))).read_at(149_990, 100) == BIG[-10:]
        assert store.open_content(Nothing()).read_at(0, 10) == b""
    assert os.listdir(tmp_path / "ingests") == []


def test_what_is_gone_or_cut_is_a_cache_failure(tmp_path: Path) -> None:
    with opened(LayerStore(tmp_path)) as store:
        keep(store)
        with pytest.raises(CacheFailure):
            store.open_content(Span(Digest.of(b""), 0, 1))
        with pytest.raises(CacheFailure, match="cut off"):
            store.open_content(Span(LAYER, len(STREAM), 1))


def test_a_dropped_layer_can_still_be_read_by_who_has_it_open(tmp_path: Path) -> None:
    with opened(LayerStore(tmp_path)) as store:
        keep(store)
        content, index = store.open_content(Span(LAYER, 0, 5)), store.open_index(LAYER)
        store.drop(LAYER)
        assert not store.is_ingested(LAYER)
        assert content.read_at(0, 5) == b"small"
        assert index.row(0) == ROOT
        store.drop(LAYER)


def test_layers_of_other_digest_algorithms_have_names_of_their_own(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    assert store.index_path(Digest("sha512", "a" * 128)).name == f"sha512-{'a' * 128}.index"


def test_what_was_not_published_is_removed(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    with store.begin_layer() as writer:
        writer.begin_expanded().write(memoryview(BIG))
        writer.write(b"small")
    assert files_of(tmp_path) == []


def test_a_layer_is_young_until_it_is_settled(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    keep(store)
    (marker,) = (tmp_path / "young").iterdir()
    assert json.loads(marker.read_text()) == {"boot": store.boot, "layer": str(LAYER)}
    store.settle()
    store.settle()
    assert list((tmp_path / "young").iterdir()) == []
    assert store.is_ingested(LAYER)


class SlowDisk(UnsettledLayers):
    """Settles for as long as *go* is not set, and counts how many do at once."""

    def __init__(self, young: Path) -> None:
        super().__init__(young, boot="now")
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.threads: list[int] = []

    def settle(self) -> None:
        self.threads.append(sum(thread.name == "settle" for thread in threading.enumerate()))
        self.begun.release()
        assert self.go.wait(60)
        super().settle()


def test_many_layers_do_not_make_many_threads_that_sync_the_disk(tmp_path: Path) -> None:
    keep(LayerStore(tmp_path))
    store = SlowDisk(tmp_path / "young")
    store.settle_soon()
    assert store.begun.acquire(timeout=60)
    for _ in range(20):
        store.settle_soon()
    store.go.set()
    assert store.begun.acquire(timeout=60)
    for thread in threading.enumerate():
        if thread.name == "settle":
            thread.join(60)
    assert max(store.threads) == 1
    # The first did not see what became visible later; one more sees it all.
    assert len(store.threads) == 2
    assert list((tmp_path / "young").iterdir()) == []


def test_a_power_cut_leaves_no_empty_sums_of_a_layer_that_was_settled_while_it_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, written = LayerStore(tmp_path), list[bool]()
    mark = store._young.mark

    def settle_at_once(layer: Digest, *, beside: Path) -> None:
        mark(layer, beside=beside)
        written.append(beside.with_suffix(".sums").exists())  # what a settle() flushes now
        store.settle()

    monkeypatch.setattr(store._young, "mark", settle_at_once)
    keep(store)
    assert written == [True]


def test_a_young_layer_survives_a_crash_of_the_daemon(tmp_path: Path) -> None:
    keep(LayerStore(tmp_path, boot="this"))
    store = LayerStore(tmp_path, boot="this")
    store.recover()
    assert store.is_ingested(LAYER)


TEARS: dict[str, Callable[[LayerStore], object]] = {
    "empty data": lambda store: os.truncate(store.data_path(LAYER), 0),
    "zeros for data": lambda store: store.data_path(LAYER).write_bytes(bytes(len(STREAM))),
    "an empty index": lambda store: os.truncate(store.index_path(LAYER), 0),
    "no index": lambda store: store.index_path(LAYER).unlink(),
}


@pytest.mark.parametrize("tear", TEARS)
def test_what_a_crash_of_the_machine_tore_is_removed_and_what_is_whole_stays(tmp_path: Path, tear: str) -> None:
    keep(LayerStore(tmp_path, boot="before"))
    keep(LayerStore(tmp_path, boot="before"), other=b"other")
    TEARS[tear](LayerStore(tmp_path))
    store = LayerStore(tmp_path, boot="now")
    store.recover()
    assert not store.is_ingested(LAYER)
    assert sorted(path.stem for path in (tmp_path / "layers").iterdir()) == [OTHER.encoded] * 3
    assert store.is_whole(OTHER)
    assert list((tmp_path / "young").iterdir()) == []


def test_layers_of_an_older_release_are_not_here_and_give_their_room_back(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    keep(store)
    keep(store, other=b"other")
    for path in (tmp_path / "layers").glob(f"{LAYER.encoded}.tar"):
        path.rename(path.with_suffix(".pack"))
    with closing(sqlite3.connect(store.index_path(LAYER))) as index:
        index.execute("PRAGMA user_version = 1")
    old = tmp_path / "objects/ab" / ("ab" * 32)
    old.parent.mkdir(parents=True)
    old.write_bytes(BIG)
    assert not store.is_ingested(LAYER)
    assert not store.is_whole(LAYER)
    LayerStore(tmp_path).recover()
    assert not old.exists()
    assert store.budget.trim() >= len(BIG)
    assert sorted(path.stem for path in (tmp_path / "layers").iterdir()) == [OTHER.encoded] * 3


def test_a_layer_of_an_older_release_is_replaced_whole(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    keep(store)
    store.data_path(LAYER).rename(store.index_path(LAYER).with_suffix(".pack"))
    keep(store)
    assert store.is_whole(LAYER)
    assert sorted(path.suffix for path in (tmp_path / "layers").iterdir()) == [".index", ".sums", ".tar"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"boot": "x", "layer": "nonsense"}'])
def test_a_torn_marker_is_removed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "marker").write_bytes(content)
    LayerStore(tmp_path).recover()
    assert files_of(tmp_path) == []


def test_recovering_an_empty_cache_does_nothing(tmp_path: Path) -> None:
    LayerStore(tmp_path / "not there yet").recover()
    LayerStore(tmp_path / "not there yet").settle()
    assert list(tmp_path.iterdir()) == []


def test_what_dead_ingests_left_is_swept_and_living_ones_are_not_touched(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    for token in ("dead", "without-lock"):
        (tmp_path / "ingests" / token).mkdir(parents=True)
        (tmp_path / "ingests" / token / "o1").write_bytes(b"rest")
    (tmp_path / "ingests" / "dead.lock").touch()
    (tmp_path / "ingests" / "lonely.lock").touch()
    with store.begin_layer() as living:
        living.rows.add(ROOT)
        LayerStore(tmp_path).sweep()
        assert len(os.listdir(tmp_path / "ingests")) == 2
        store.publish(living, LAYER)
    assert store.is_ingested(LAYER)
    assert os.listdir(tmp_path / "ingests") == []


def test_a_lock_of_another_process_keeps_its_ingest(tmp_path: Path) -> None:
    (tmp_path / "ingests" / "other").mkdir(parents=True)
    with (tmp_path / "ingests" / "other.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        LayerStore(tmp_path).sweep()
        assert sorted(os.listdir(tmp_path / "ingests")) == ["other", "other.lock"]
    LayerStore(tmp_path).sweep()
    assert os.listdir(tmp_path / "ingests") == []


def test_temporary_files_of_dead_writers_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    names = ("images/.merged-dead", "images/.erofs-living", "layers/.dead", "images/.merged-just-made")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
        if name != names[-1]:
            os.utime(tmp_path / name, (1, 1))
    with (tmp_path / names[1]).open("rb") as living:
        lock_new(living.fileno())
        LayerStore(tmp_path).sweep()
    left = [str(path.relative_to(tmp_path)) for kind in ("images", "layers") for path in (tmp_path / kind).iterdir()]
    assert sorted(left) == [names[1], names[3]]


def test_what_an_older_release_left_of_ingests_is_swept_unless_it_lives(tmp_path: Path) -> None:
    for token in ("dead", "living"):
        (tmp_path / "passes" / token).mkdir(parents=True)
        (tmp_path / "passes" / token / "data").write_bytes(b"rest" * 4096)
    with (tmp_path / "passes" / "living.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        LayerStore(tmp_path).sweep()
        assert sorted(os.listdir(tmp_path / "passes")) == ["living", "living.lock"]
        assert [file.name for file in take_inventory(tmp_path).under_way] == ["living.lock", "data"]
    LayerStore(tmp_path).sweep()
    assert not (tmp_path / "passes").exists()


def test_what_is_idle_is_given_up_where_descriptors_run_out(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    keep(store)
    index, before = store.open_index(LAYER), store.tables.descriptors
    tries = []

    def write() -> None:
        tries.append(store.tables.descriptors)
        if len(tries) == 1:
            with no_descriptor_left():
                LayerIndex.open(store.index_path(LAYER))

    store.with_room(write)
    assert (before, tries) == (1, [1, 0])
    assert index.row(0) == ROOT


def test_a_failure_that_no_room_would_help_is_raised_at_once(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    keep(store)
    index, tries = store.open_index(LAYER), []

    def write() -> None:
        tries.append(1)
        raise CacheFailure("the disk says no")

    with pytest.raises(CacheFailure, match="says no"):
        store.with_room(write)
    assert len(tries) == 1
    assert index.row(0) == ROOT
