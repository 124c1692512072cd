"""Chunks of a layer are evicted while it is read: no reader sees the hole, and no map names one."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regfs.model.digest import Digest
from regfs.store.layers import chunk_map
from regfs.store.layers.chunk_eviction import evict_chunks
from regfs.store.layers.chunks import PartialData, StoredChunk
from regfs.store.layers.content import OpenPartialContent, Pieces, Span
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.refetched_data import open_parts
from tests.store.filled_store import run_python
from tests.support.caches import keep_layer, keep_lazy_layer, used_before

MIB = 1 << 20
SIZES = [MIB, 300_000, 200, 700, 2 * MIB, 100_000, 5000, MIB]


def content_of(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number])


def kept(root: Path) -> tuple[LayerStore, Digest, list[StoredChunk]]:
    """Return a store with a lazy layer of a chunk for each of SIZES, all of them here."""
    store = LayerStore(root)
    layer, chunks = keep_lazy_layer(store, "lazy", [content_of(number) for number in range(len(SIZES))])
    data = store.partial_data(layer)
    for chunk in chunks:
        data.keep(chunk, content_of(chunk.number))
    return store, layer, chunks


def allowed() -> bool:
    return True


def size_of(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_evicted_chunks_are_missing_for_everyone_and_their_room_is_free(tmp_path: Path) -> None:
    store, layer, chunks = kept(tmp_path)
    reader, before = store.partial_data(layer), size_of(store.data_path(layer))
    assert reader.missing(chunks) == []
    freed = evict_chunks(store.index_path(layer), 2 * MIB, may_begin=allowed)
    assert freed == before - size_of(store.data_path(layer)) >= 2 * MIB
    missing = reader.missing(chunks)
    assert sum(chunk.size for chunk in missing) >= 2 * MIB
    for chunk in chunks:
        stored = os.pread(reader.fd, chunk.size, chunk.start)
        assert stored == (bytes(chunk.size) if chunk in missing else content_of(chunk.number))


def test_all_can_be_evicted_and_kept_again(tmp_path: Path) -> None:
    store, layer, chunks = kept(tmp_path)
    evict_chunks(store.index_path(layer), 1 << 40, may_begin=allowed)
    assert size_of(store.data_path(layer)) == 0
    data = store.partial_data(layer)
    assert data.missing(chunks) == chunks
    for chunk in chunks:
        data.keep(chunk, content_of(chunk.number))
    assert store.is_complete(layer)


def test_what_was_read_since_the_last_eviction_goes_last(tmp_path: Path) -> None:
    store, layer, chunks = kept(tmp_path)
    evict_chunks(store.index_path(layer), 1, may_begin=allowed)  # looks at all: each was new
    data = store.partial_data(layer)
    there = [chunk for chunk in chunks if chunk not in data.missing(chunks)]
    used = next(chunk for chunk in there if chunk.size == 2 * MIB)
    data.map.note_use([used.number])
    evict_chunks(store.index_path(layer), MIB, may_begin=allowed)
    assert used not in data.missing(chunks)


def test_nothing_is_evicted_of_a_layer_that_is_needed_whole(tmp_path: Path) -> None:
    store, layer, chunks = kept(tmp_path)
    assert evict_chunks(store.index_path(layer), MIB, may_begin=lambda: False) == 0
    use = store.uses.hold(store.map_path(layer))
    index = store.index(layer)
    store.budget.trim(0)
    assert store.partial_data(layer).missing(chunks) == []
    use.release()
    store.budget.trim(0)
    assert store.partial_data(layer).missing(chunks) == chunks
    del index


def test_readers_never_see_what_an_eviction_leaves(tmp_path: Path) -> None:
    """Three readers fetch what is missing again, each with descriptors of its own, as processes have."""
    store, layer, chunks = kept(tmp_path)
    ended, wrong = threading.Event(), list[int]()

    def read(seed: int) -> None:
        data, chance = store.partial_data(layer), random.Random(seed)
        for _ in range(100):
            chunk = chance.choice(chunks)
            opened = opened_at(data, layer, chunk)
            if opened.read_at(0, chunk.size) != content_of(chunk.number):
                wrong.append(chunk.number)

    def evict() -> None:
        while not ended.is_set():
            evict_chunks(store.index_path(layer), MIB, may_begin=allowed)

    evictor = threading.Thread(target=evict)
    evictor.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(read, range(3)))
    finally:
        ended.set()
        evictor.join()
    assert wrong == []
    assert store.partial_data(layer).map.evictions() > 3


def opened_at(data: PartialData, layer: Digest, chunk: StoredChunk) -> OpenPartialContent:
    """Return the opened bytes of *chunk*, which are made again where they are missing."""

    def ensure(_start: int, _stop: int) -> Pieces:
        data.map.note_use([chunk.number])
        for _ in range(100):
            if not data.missing([chunk]):
                break
            data.keep(chunk, content_of(chunk.number))
        return ()

    span = Span(layer, chunk.start, chunk.size)
    return OpenPartialContent(span, data, ensure=ensure)


KILLED = """
import os, signal, sys
from pathlib import Path
from regfs.store.layers import chunk_eviction
left = int(sys.argv[2])
def counted(real):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return call
os.pwrite, chunk_eviction.punch_hole = counted(os.pwrite), counted(chunk_eviction.punch_hole)
chunk_eviction.evict_chunks(Path(sys.argv[1]), 1 << 40, may_begin=lambda: True)
"""


def run_killed(index: Path, step: int) -> int:
    with run_python(KILLED, index, str(step)) as killed:
        return killed.wait()


def test_parts_of_other_spans_than_the_index_has_are_left_alone(tmp_path: Path) -> None:
    """Numbers of chunks mean other bytes in each table: a hole could be marked as here."""
    store = LayerStore(tmp_path)
    layer, chunks = keep_lazy_layer(store, "plain", [content_of(number) for number in range(len(SIZES))])
    for path in (store.data_path(layer), store.map_path(layer)):
        path.unlink()
    size = store.index(layer).layout().size
    data = open_parts(store, layer, size=size, count=len(SIZES), table=b"of another", let_go=lambda: None)
    data.keep(chunks[0], content_of(0))
    assert evict_chunks(store.index_path(layer), 1 << 40, may_begin=allowed) == 0
    assert data.missing(chunks[:1]) == []
    assert os.pread(data.fd, SIZES[0], 0) == content_of(0)


def test_a_kill_at_any_step_leaves_no_map_that_names_a_hole(tmp_path: Path) -> None:
    for step in range(30):
        store, layer, chunks = kept(tmp_path / str(step))
        code = run_killed(store.index_path(layer), step)
        data = store.partial_data(layer)
        missing = data.missing(chunks)
        for chunk in chunks:
            assert chunk in missing or os.pread(data.fd, chunk.size, chunk.start) == content_of(chunk.number)
        for chunk in missing:
            data.keep(chunk, content_of(chunk.number))
        assert data.map.is_complete()
        # What the killed one had marked and not freed goes with the next eviction.
        run_killed(store.index_path(layer), step)
        evict_chunks(store.index_path(layer), 1 << 40, may_begin=allowed)
        assert size_of(store.data_path(layer)) == 0
        if code == 0:
            assert step > 2
            return
        assert code == -signal.SIGKILL
    pytest.fail("it never came to its end")


def test_a_layer_that_is_read_outlives_what_was_used_after_it_was_opened(tmp_path: Path) -> None:
    """The layer that was opened first lost its bytes first, however often it was read."""
    store, layer, chunks = kept(tmp_path)
    plain = keep_layer(store, "plain", files=[random.Random(9).randbytes(2 * MIB)])
    index, data = store.index(layer), store.partial_data(layer)
    for path in (store.index_path(layer), store.map_path(layer)):
        used_before(path, 2000)
    used_before(store.index_path(plain), 1000)
    data.map.note_use([0])
    store.budget.trim(size_of(store.data_path(layer)) + MIB)
    assert not store.is_ingested(plain)
    assert data.missing(chunks) == []
    del index


def test_an_eviction_is_no_use_of_the_layer(tmp_path: Path) -> None:
    store, layer, _ = kept(tmp_path)
    used_before(store.map_path(layer), 2000)
    before = store.map_path(layer).stat().st_mtime_ns
    assert evict_chunks(store.index_path(layer), MIB, may_begin=allowed)
    assert store.map_path(layer).stat().st_mtime_ns == before


def test_a_read_during_an_eviction_goes_on_without_its_mark(tmp_path: Path) -> None:
    store, layer, chunks = kept(tmp_path)
    evict_chunks(store.index_path(layer), 1, may_begin=allowed)  # takes the marks of all
    data = store.partial_data(layer)
    there = next(chunk for chunk in chunks if chunk not in data.missing(chunks))
    with store.map_path(layer).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        data.map.note_use([there.number])
        assert 3 not in store.map_path(layer).read_bytes()[80:]
    data.map.note_use([there.number])
    assert 3 in store.map_path(layer).read_bytes()[80:]


def test_small_chunks_are_counted_with_the_blocks_that_they_take(tmp_path: Path) -> None:
    """A file of 300 bytes takes 4 KiB: the cache held ten per cent more than its limit."""
    counted = [0]
    store = LayerStore(tmp_path)
    layer, chunks = keep_lazy_layer(store, "small", [b"x" * 300] * 400)
    data = PartialData(
        store.data_path(layer), store.map_path(layer), boot=store.boot,
        reserve=lambda size: counted.__setitem__(0, counted[0] + size),
    )  # fmt: skip
    before = size_of(store.data_path(layer))
    for chunk in random.Random(1).sample(chunks[:200], 100):
        data.keep(chunk, b"x" * 300)
    for chunk in chunks[200:]:
        data.keep(chunk, b"x" * 300)
    taken = size_of(store.data_path(layer)) - before
    assert taken <= counted[0] < 8 * taken


def test_nothing_is_evicted_while_a_chunk_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_map, "_EVICTED_WITHIN_S", 0.01)
    store, layer, chunks = kept(tmp_path)
    data = store.partial_data(layer)
    with data.map.without_evictions():
        assert evict_chunks(store.index_path(layer), MIB, may_begin=allowed) == 0
    assert data.missing(chunks) == []
