"""The budget of the cache: the limit holds, what is in use stays, and no crash or second process gets in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.errors import CacheFailure, CacheFull, NotFound
from regfs.model.cache_limits import Limits, MinFree
from regfs.model.digest import Digest
from regfs.model.verification import VerifiedChunks, verified
from regfs.store.blobs import BlobStore
from regfs.store.eviction.budget import Budget
from regfs.store.eviction.eviction import evict
from regfs.store.eviction.inventory import take_inventory, used_by
from regfs.store.eviction.uses import Uses
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.layers.content import Span
from regfs.store.layers.ingest_directories import ingest_directory
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.file_locks import changing
from regfs.store.verify import verify
from tests.support.caches import MIB, keep_layer, size_of, tmpfs, used_before
from tests.support.descriptors import open_files
from tests.support.mounted import REPOSITORY_ROOT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs")


def whole(content: bytes) -> VerifiedChunks:
    return verified([content], Digest.of(content), len(content))


def big(fill: int, size: int = MIB) -> bytes:
    return bytes([fill]) + b"x" * (size - 1)


def kept_merged(root: Path, name: str = "chain") -> Path:
    path = root / "images" / f"{name}.merged"
    writer = MergedTableWriter(path)
    writer.finish(0, b"a" * 80)
    writer.abandon()
    return path


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY_ROOT,
    )  # fmt: skip


def names_of(store: LayerStore, layers: list[Digest]) -> list[int]:
    return [number for number, layer in enumerate(layers) if store.is_ingested(layer)]


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


# Crashes and leftovers.

KILLED = """
import os, signal, sys
from pathlib import Path
left = int(sys.argv[3])
def counted(real):
    def call(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)
    return call
from regfs.store.layers.layer_store import LayerStore
from tests.support.caches import keep_layer, MIB
store = LayerStore(Path(sys.argv[1]))
os.unlink, os.rename = counted(os.unlink), counted(os.rename)
if sys.argv[2] == "evict":
    store.budget.trim(0)
else:
    keep_layer(store, "new", files=[b"1" * 100_000, b"2" * 100_000])
"""


@pytest.mark.parametrize("what", ["evict", "publish"])
def test_a_death_at_any_step_leaves_whole_layers_and_nothing_that_stays(tmp_path: Path, what: str) -> None:
    for step in range(100):
        root = tmp_path / str(step)
        store = LayerStore(root)
        files = [b"1" * 100_000, b"2" * 100_000]
        layers = [keep_layer(store, name, files=files) for name in ("one", "two")]
        layers.append(Digest.of(b"".join(each + bytes(-len(each) % 512) for each in (b"new", b"small", *files))))
        with run_python(KILLED, root, what, str(step)) as killed:
            code = killed.wait()
        for layer in layers:
            assert not store.is_ingested(layer) or store.is_whole(layer)
        store.recover()
        store.sweep()
        for name, layer in zip(("one", "two", "new"), layers, strict=True):
            assert keep_layer(store, name, files=files) == layer
            assert store.is_whole(layer)
        store.budget.trim(0)
        assert size_of(root) == 0
        if code == 0:
            assert step > 4
            return
        assert code == -signal.SIGKILL
    pytest.fail("it never came to its end")


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = [tmp_path / "blobs/sha256/ab/.new-dead", tmp_path / "images/.merged-dead"]
    for path in dead:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"rest")
    blobs, budget = BlobStore(tmp_path / "blobs"), Budget(tmp_path)
    content = big(1)

    def chunks() -> Iterator[bytes]:
        yield content[:100]
        budget.trim(0)
        yield content[100:]

    writer = MergedTableWriter(tmp_path / "images/chain.merged")
    path = blobs.receive(Digest.of(content), len(content), verified(chunks(), Digest.of(content), len(content)))
    writer.finish(0, b"a" * 80)
    writer.abandon()
    assert path.read_bytes() == content
    assert MergedTable.open(tmp_path / "images/chain.merged").root == 0
    assert not any(path.exists() for path in dead)


def test_promoted_files_without_a_layer_go(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer", files=[big(1)])
    store.promotion.promote(Span(layer, 1024, MIB))
    store.index_path(layer).unlink()
    assert store.budget.trim() >= 2 * MIB
    assert size_of(tmp_path) == 0


def test_a_clock_that_was_set_back_stops_no_eviction(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limits=Limits(0))
    layer = keep_layer(store, "layer", files=[big(1)])
    used_before(store.index_path(layer), -(10**6))
    LayerStore(tmp_path, limits=Limits(0)).budget.reserve(1)
    assert not store.is_ingested(layer)


WRITING = """
import os, sys
from pathlib import Path
from regfs.model.cache_limits import Limits, MinFree
from regfs.store.layers.layer_store import LayerStore
from tests.support.caches import keep_layer
store = LayerStore(Path(sys.argv[1]), limits=Limits(int(sys.argv[2])))
sys.stdin.readline()
for number in range(20):
    keep_layer(store, f"{os.getpid()} {number}", files=[os.urandom(1 << 20) for _ in range(3)])
"""


def test_two_processes_that_write_at_once_hold_the_limit_together(tmp_path: Path) -> None:
    limit = 32 * MIB
    writers = [run_python(WRITING, tmp_path, str(limit)) for _ in range(2)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    most = 0
    while any(writer.poll() is None for writer in writers):
        with changing(tmp_path):  # what is renamed while it is counted would be counted twice
            most = max(most, size_of(tmp_path))
        time.sleep(0.001)
    most = max(most, size_of(tmp_path))
    assert [writer.returncode for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    # Both may take their last megabyte at once, and write an index beside it.
    assert 20 * MIB < most <= limit + 2 * MIB + MIB // 2


# Disks.


@needs_root
def test_a_twentieth_of_the_disk_stays_free(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=20m") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB))
        layers = [keep_layer(store, f"layer {number}", files=[big(number, 4 * MIB)]) for number in range(6)]
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= MIB
        assert store.is_whole(layers[-1])
        index = store.open_index(layers[-1])
        with pytest.raises(
            CacheFull, match=r"needs .* MiB; the disk of .* has .* to spare \(1.0 MiB .*--cache-dir, .*"
        ):
            keep_layer(LayerStore(disk), "more", files=[big(7, 17 * MIB)])
        index.close()
        (disk / "of somebody else").write_bytes(bytes(19 * MIB + MIB // 2 - size_of(disk)))
        kept = names_of(store, layers)
        keep_layer(LayerStore(disk), "more", files=[big(7, MIB)])
        assert len(names_of(store, layers)) < len(kept)


@contextmanager
def full_disk(at: Path, options: str) -> Iterator[tuple[Path, LayerStore, Digest, Path]]:
    """Yield a disk that something else has filled, a store on it, and the layer and the merged table in it."""
    with tmpfs(at, options) as disk:
        layer = keep_layer(LayerStore(disk), "layer", files=[big(1, 4 * MIB)])
        table = kept_merged(disk)
        (disk / "of another program").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        yield disk, LayerStore(disk, limits=Limits(100 * MIB)), layer, table


@needs_root
def test_an_image_that_cannot_fit_evicts_nothing_of_the_one_that_is_cached(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "size=40m") as (_, store, layer, table):
        held = store.open_index(layer)
        for ask in (store.budget.reserve, store.budget.require, store.budget.reserve_table):
            with pytest.raises(CacheFull):
                ask(6 * MIB)
            assert table.exists()
            assert store.is_whole(layer)
        held.close()
        with pytest.raises(CacheFull):
            store.budget.reserve(6 * MIB)
        assert table.exists()
        assert store.is_whole(layer)
        store.budget.reserve(MIB)  # what can be had is had
        assert not store.is_whole(layer)


@needs_root
def test_a_document_that_a_full_disk_does_not_take_evicts_no_layer(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "size=40m") as (disk, store, layer, table):
        blobs = BlobStore(disk / "blobs", reserve=store.budget.reserve, reserve_document=store.budget.reserve_document)
        blobs.keep(Digest.of(b"document"), b"document")
        assert blobs.load(Digest.of(b"document"), at_most=1 << 20) is None
        assert table.exists()
        assert store.is_whole(layer)


@needs_root
def test_a_merged_table_may_take_of_the_twentieth_that_stays_free(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "size=100m") as (disk, store, layer, _):
        os.truncate(disk / "of another program", (disk / "of another program").stat().st_size - 3 * MIB)
        store.budget.reserve_table(MIB)
        store.budget.reserve_document(MIB // 2)
        assert store.is_whole(layer)
        held = store.open_index(layer)
        with pytest.raises(CacheFull):
            store.budget.reserve(MIB)
        with pytest.raises(CacheFull):
            store.budget.reserve_table(3 * MIB)
        held.close()


@needs_root
def test_an_ingest_for_which_the_disk_has_no_inode_leaves_none_behind(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m,nr_inodes=3") as disk:  # its root, `ingests`, and one
        with pytest.raises(CacheFull), ingest_directory(disk / "ingests"):
            pass
        assert os.listdir(disk / "ingests") == []


@needs_root
def test_a_disk_without_inodes_is_full(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=100m,nr_inodes=120") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB))
        for number in range(30):
            layer = keep_layer(
                LayerStore(disk, limits=Limits(100 * MIB)), f"layer {number}", files=[big(number, 100_000)]
            )
        assert store.is_whole(layer)


@needs_root
def test_a_read_only_cache_is_read_and_documents_are_served_unkept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "disk", "size=20m") as disk:
        store = LayerStore(disk)
        layer = keep_layer(store, "layer", files=[big(1)])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert store.open_index(layer).lookup(0, b"file1") is not None
        assert store.open_content(Span(layer, 512, 5)).read_at(0, 5) == b"small"
        blobs = BlobStore(disk / "blobs", reserve=store.budget.reserve)
        for _ in range(3):
            blobs.keep(Digest.of(b"document"), b"document")
        # Threads of earlier tests may have something to say too.
        told = [record.levelname for record in caplog.records if record.name.startswith("regfs.store.")]
        assert told == ["WARNING"]
        with pytest.raises(CacheFailure, match=r"Read-only file system; --cache-dir names another"):
            keep_layer(store, "more")
        store.close()


@needs_root
def test_an_unexpected_end_of_the_disk_names_path_and_remedy(tmp_path: Path) -> None:
    # The budget has just looked; then somebody else takes all that there was.
    with tmpfs(tmp_path / "disk", "size=16m") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB))
        with store.begin_layer() as writer:
            store.budget.reserve(1)
            (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
            with pytest.raises(CacheFailure, match=rf"{disk}.*No space left on device.*--cache-dir"):
                writer.write(big(1))
        assert size_of(disk) == 0


@needs_root
@pytest.mark.parametrize("limit", [None, 0, 4 * MIB])
def test_a_file_system_that_tells_no_size_has_room(tmp_path: Path, limit: int | None) -> None:
    with tmpfs(tmp_path / "disk", "size=0,nr_inodes=0") as disk:
        assert os.statvfs(disk).f_blocks == 0
        store = LayerStore(disk, limits=Limits(limit))
        assert store.is_whole(keep_layer(store, "layer", files=[big(1)]))
        store.close()


def test_a_layer_that_is_gone_is_not_found(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer")
    store.budget.trim(0)
    with pytest.raises(NotFound):
        store.open_index(layer)


# How full it is.


def test_how_full_the_cache_is_is_known_without_a_walk_at_each_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path, limits=Limits(100 * MIB))
    walks = []
    monkeypatch.setattr("regfs.store.eviction.budget.used_by", lambda root: (walks.append(root), used_by(root))[1])
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
