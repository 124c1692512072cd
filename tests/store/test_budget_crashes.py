"""Eviction and processes that die: what is left is whole, and leftovers go."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.model.cache_limits import Limits
from regfs.model.digest import Digest
from regfs.model.verification import verified
from regfs.store.blobs import BlobStore
from regfs.store.eviction.budget import Budget
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.layers.content import Span
from regfs.store.layers.layer_store import LayerStore
from regfs.store.locks.file_locks import changing
from regfs.store.verify import verify
from tests.store.filled_store import big, run_python
from tests.support.caches import MIB, keep_layer, size_of, used_before

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
from regfs.store.images.merged_table import MergedTableWriter
from regfs.store.layers.layer_store import LayerStore
from tests.support.caches import keep_layer, MIB
store = LayerStore(Path(sys.argv[1]))
os.unlink, os.rename = counted(os.unlink), counted(os.rename)
if sys.argv[2] == "evict":
    store.budget.trim(0)
elif sys.argv[2] == "table":
    writer = MergedTableWriter(Path(sys.argv[1]) / "images/chain.merged")
    writer.finish(0, b"b" * 80)
    writer.abandon()
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


def test_a_kill_at_any_step_of_publication_left_a_table_without_its_sums(tmp_path: Path) -> None:
    """1,000 kills had left five tables whose checksums were missing or empty. Here the table has a predecessor."""
    for step in range(20):
        root = tmp_path / str(step)
        LayerStore(root)
        writer = MergedTableWriter(root / "images/chain.merged")
        writer.finish(0, b"a" * 80)
        writer.abandon()
        with run_python(KILLED, root, "table", str(step)) as killed:
            code = killed.wait()
        assert list(verify(root, drop=False)) == []
        if code == 0:
            assert step > 2
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
