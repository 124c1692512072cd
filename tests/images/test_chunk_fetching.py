"""Fetching chunks: only what is read, in few requests, each once; never a byte that is not verified."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from regfs.errors import CacheFull, DigestMismatch, Interrupted, RangesRefused, RegistryUnavailable, WouldBlock
from regfs.images.lazy.cache_room import CacheRoom
from regfs.images.lazy.chunk_fetching import ChunkFetcher
from regfs.images.lazy.chunk_ranges import MAX_GAP, MAX_RANGE
from regfs.images.lazy.chunk_read_ahead import FIRST_AROUND, LEAST_AROUND, MANY, VICINITY, SmallReads
from regfs.images.lazy.chunk_read_ahead import SMALL as READ_SMALL
from regfs.images.lazy.chunk_source import LayerBytes
from regfs.images.lazy.foreground import Foreground
from regfs.layers.formats.format import Chunk
from regfs.model.cache_limits import Limits, MinFree
from regfs.process.waiting.deadline import NON_BLOCKING, Deadline, under
from regfs.process.waiting.single_flight import Flights
from regfs.store.eviction.budget import Budget
from regfs.store.layers.chunk_map import LockedMap, write_map
from regfs.store.layers.chunks import PartialData, StoredChunk
from regfs.telemetry.stats import Stats
from tests.layers.tables import Listed
from tests.support.images import BuiltLayer, file
from tests.support.lazy_layers import estargz, zstd_chunked

BOOT = "11111111-1111-1111-1111-111111111111"


class Table:
    """The chunks of a layer, laid out one file behind the other."""

    def __init__(self, listed: Listed) -> None:
        self.chunks: list[StoredChunk] = []
        self.places: dict[bytes, int] = {}
        self.size = 0
        for entry, chunks in listed.entries:
            self.places[entry.path] = self.size
            for chunk in chunks:
                assert chunk.digest is not None
                self.chunks.append(
                    StoredChunk(len(self.chunks), self.size + chunk.offset, *chunk[1:5], digest=chunk.digest)
                )
            self.size += entry.size + -entry.size % 512

    def chunks_between(self, start: int, stop: int) -> list[StoredChunk]:
        return [chunk for chunk in self.chunks if chunk.start < stop and start < chunk.stop]

    def chunks_by_place(self) -> Iterator[StoredChunk]:
        return iter(sorted(self.chunks, key=lambda chunk: (chunk.at, chunk.inner)))

    def bytes_of_chunks(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    def sizes_of_chunks(self) -> Iterator[tuple[int, int]]:
        return ((chunk.number, chunk.size) for chunk in self.chunks)


class Layer:
    """A layer on a registry that gives parts, in a cache that has nothing of it yet."""

    def __init__(
        self,
        directory: Path,
        built: BuiltLayer,
        *,
        served: bytes | None = None,
        rest_from: float = 1.0,
        reserve: Callable[[int], None] = lambda _: None,
        room: CacheRoom | None = None,
        is_new: bool = True,
    ) -> None:
        self.foreground = Foreground()
        listed = Listed(built)
        self.table = Table(listed)
        self.blob = built.blob if served is None else served
        self.parts: list[tuple[int, int]] = []
        self.wholes = 0
        self.unpack = listed.format.read
        self.before_part: Callable[[], None] = lambda: None
        self.before_block: Callable[[int], None] = lambda _at: None
        if is_new:
            write_map(directory / "map", len(self.table.chunks), boot=BOOT)
            with (directory / "data").open("wb") as data:
                data.truncate(self.table.size)
        self._data = directory / "data"
        self.stats = Stats()
        self.notes: list[str] = []
        self.fetcher = ChunkFetcher(
            "layer",
            table=self.table,
            data=PartialData(self._data, directory / "map", boot=BOOT, reserve=reserve),
            source=LayerBytes("the layer", self._part, self._whole, lambda chunks, stored: self.unpack(chunks, stored)),
            flights=Flights(),
            stats=self.stats,
            foreground=self.foreground,
            note=self.notes.append,
            rest_from=rest_from,
            room=room,
        )

    def _part(self, start: int, stop: int) -> bytes:
        self.parts.append((start, stop))
        self.before_part()
        return self.blob[start:stop]

    def _whole(self) -> Iterator[bytes]:
        self.wholes += 1
        for at in range(0, len(self.blob), 1000):
            self.before_block(at)
            yield self.blob[at : at + 1000]

    def read(self, path: bytes, offset: int = 0, size: int = 1 << 30) -> bytes:
        """Return bytes of a file as a reader gets them."""
        entry = next(chunk for chunk in self.table.chunks if chunk.start >= self.table.places[path])
        start = self.table.places[path] + offset
        stop = min(start + size, entry.start + FILES[path])
        self.fetcher.ensure(start, stop)
        with self._data.open("rb") as data:
            data.seek(start)
            return data.read(stop - start)


CONTENTS = {f"f{number:03}".encode(): os.urandom(3000) for number in range(100)}
CONTENTS[b"big"] = os.urandom(1_200_000)
FILES = {name: len(content) for name, content in CONTENTS.items()}
ENTRIES = [file(name, content) for name, content in CONTENTS.items()]
SMALL = [entry for entry in ENTRIES if entry.name != b"big"]


@pytest.fixture(params=["estargz", "inner", "zstd"])
def layer(request: pytest.FixtureRequest, tmp_path: Path) -> Layer:
    built = {
        "estargz": lambda: estargz(*ENTRIES, chunk_size=60_000),
        "inner": lambda: estargz(*ENTRIES, chunk_size=60_000, least_member=100_000),
        "zstd": lambda: zstd_chunked(*ENTRIES, chunk_size=60_000),
    }[request.param]()
    return Layer(tmp_path, built)


def test_a_read_fetches_its_chunk_alone_and_the_next_one_nothing(layer: Layer) -> None:
    assert layer.read(b"big", 500_000, 100) == CONTENTS[b"big"][500_000:500_100]
    [(start, stop)] = layer.parts
    assert stop - start < 200_000
    assert layer.read(b"big", 500_050, 10) == CONTENTS[b"big"][500_050:500_060]
    assert len(layer.parts) == 1


def test_reading_in_order_takes_less_than_one_request_for_ten_chunks(layer: Layer) -> None:
    for at in range(0, 1_200_000, 60_000):
        assert layer.read(b"big", at, 60_000) == CONTENTS[b"big"][at : at + 60_000]
    assert len(layer.parts) <= 5


def test_small_files_in_the_order_of_the_archive_take_few_requests(layer: Layer) -> None:
    for name in sorted(CONTENTS)[1:]:
        assert layer.read(name) == CONTENTS[name]
    assert len(layer.parts) <= 10


def test_small_files_of_one_member_come_with_the_first_of_them_in_any_order(tmp_path: Path) -> None:
    layer = Layer(tmp_path, estargz(*SMALL, least_member=100_000))
    for name in sorted(FILES.keys() - {b"big"}, reverse=True):
        assert layer.read(name) == CONTENTS[name]
    assert len(layer.parts) == len({chunk.at for chunk in layer.table.chunks})
    assert sum(stop - start for start, stop in layer.parts) <= len(layer.blob)


def test_files_here_and_there_are_fetched_alone(tmp_path: Path) -> None:
    size = READ_SMALL + 10_000
    layer = Layer(tmp_path, estargz(*[replace(entry, content=os.urandom(size)) for entry in SMALL]))
    for number in (5, 70, 30, 50, 10):
        start = layer.table.places[b"f%03d" % number]
        layer.fetcher.ensure(start, start + size)
    assert len(layer.parts) == 5
    assert sum(stop - start for start, stop in layer.parts) < 5 * (size + 2000)


def read_small_files(layer: Layer, *numbers: int) -> list[int]:
    """Read these files of 3,000 bytes, and return how many bytes were fetched for each that was not there."""
    before = len(layer.parts)
    for number in numbers:
        start = layer.table.places[b"f%03d" % number]
        layer.fetcher.ensure(start, start + 3000)
    return [stop - start for start, stop in layer.parts[before:]]


def test_a_small_read_after_another_brings_more_of_the_small_files_around_it(tmp_path: Path) -> None:
    """A program's start reads many files of a few directories, in any order: `import numpy` took 132 requests."""
    layer = Layer(tmp_path, estargz(*(file(f"f{number:03}", os.urandom(3000)) for number in range(400))))
    [first] = read_small_files(layer, 390)
    assert first < 2 * 3000, "one read does not tell that more of them are wanted"
    [second] = read_small_files(layer, 10)
    assert FIRST_AROUND < second < 2 * FIRST_AROUND
    [third] = read_small_files(layer, 200)
    assert 5 * FIRST_AROUND < third < 9 * FIRST_AROUND
    assert read_small_files(layer, *range(100, 300)) == []
    assert read_small_files(layer, 390) == []


def test_small_reads_far_from_each_other_are_fetched_alone(tmp_path: Path) -> None:
    far = file("far", os.urandom(VICINITY))
    layer = Layer(tmp_path, estargz(*SMALL[:20], far, *SMALL[20:], chunk_size=1 << 20))
    assert all(size < 2 * 3000 for size in read_small_files(layer, 5, 30))


def test_where_many_small_files_were_read_the_next_one_far_away_brings_some_around_it() -> None:
    """A program's start reads two files of many directories: each of them took two requests."""
    reads = SmallReads()
    assert [reads.note(number * 2 * VICINITY) for number in range(MANY)] == [0] * MANY
    assert reads.note(1 << 40) == LEAST_AROUND


def test_a_reader_waits_for_no_file_that_comes_with_its_own(tmp_path: Path) -> None:
    """All files of a range were unpacked before the reader of one of them went on."""
    layer = Layer(tmp_path, estargz(*SMALL))
    layer.read(b"f000")
    unpack, unpacked, may_go_on = layer.unpack, list[int](), threading.Event()

    def slow(chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
        if unpacked:
            may_go_on.wait(30)
        unpacked.append(len(chunks))
        return unpack(chunks, stored)

    layer.unpack = slow
    assert layer.read(b"f050") == CONTENTS[b"f050"]
    may_go_on.set()
    assert layer.read(b"f051") == CONTENTS[b"f051"]
    assert len(layer.parts) == 2


def test_a_small_read_brings_no_part_of_a_large_file(tmp_path: Path) -> None:
    big = file("big", os.urandom(2 * READ_SMALL))
    layer = Layer(tmp_path, estargz(*SMALL[:2], big, *SMALL[2:]))
    read_small_files(layer, 1, 0)
    start = layer.table.places[b"big"]
    assert not layer.fetcher.has(start, start + 1)


def test_readers_of_one_small_file_are_no_reason_to_fetch_more() -> None:
    reads = SmallReads()
    assert [reads.note(5000) for _ in range(3)] == [0] * 3
    assert reads.note(6000) == FIRST_AROUND


def test_what_is_wanted_at_once_is_one_range_unless_it_is_far_apart(tmp_path: Path) -> None:
    layer = Layer(tmp_path, zstd_chunked(*SMALL))
    layer.fetcher.ensure(0, layer.table.size)
    assert len(layer.parts) == 1


def test_a_range_is_no_longer_than_what_may_be_in_memory(tmp_path: Path) -> None:
    layer = Layer(tmp_path, zstd_chunked(file("a", os.urandom(9_000_000)), chunk_size=1 << 20))
    layer.fetcher.ensure(0, layer.table.size)
    assert len(layer.parts) == 2
    assert max(stop - start for start, stop in layer.parts) <= MAX_RANGE


def test_what_lies_between_two_chunks_is_fetched_only_where_it_is_little(tmp_path: Path) -> None:
    files = [file("a", os.urandom(1000)), file("gap", os.urandom(2 * MAX_GAP)), file("b", os.urandom(1000))]
    layer = Layer(tmp_path, estargz(*files))
    layer.fetcher.ensure(layer.table.places[b"gap"], layer.table.places[b"b"])
    layer.parts.clear()
    layer.fetcher.ensure(0, layer.table.size)
    assert len(layer.parts) == 2


def test_many_readers_of_a_chunk_are_one_request(layer: Layer) -> None:
    everyone = threading.Barrier(8)
    found: list[bytes] = []

    def read() -> None:
        everyone.wait(30)
        found.append(layer.read(b"big", 5, 10))

    started = threading.Event()

    def hold() -> None:
        started.set()
        everyone.wait(30)  # the first seven came to the barrier; the eighth is here, in its request

    threads = [threading.Thread(target=read) for _ in range(7)]
    for thread in threads:
        thread.start()
    layer.before_part = hold
    first = layer.read(b"big", 5, 10)
    for thread in threads:
        thread.join(30)
    assert found == [first] * 7
    assert len(layer.parts) == 1


def test_a_reader_that_may_not_wait_is_told_so_and_asks_for_nothing(layer: Layer) -> None:
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        layer.read(b"big", 0, 10)
    assert layer.parts == []
    layer.read(b"big", 0, 10)
    with under(NON_BLOCKING):
        assert layer.read(b"big", 0, 10) == CONTENTS[b"big"][:10]


def test_a_wrong_chunk_is_fetched_twice_and_not_given_out(tmp_path: Path) -> None:
    built = estargz(file("a", b"a" * 3000), file("b", os.urandom(300_000)), file("c", b"c" * 3000))
    chunk = Table(Listed(built)).chunks[1]
    wrong = bytearray(built.blob)
    wrong[chunk.at + 2000] ^= 1
    layer = Layer(tmp_path, built, served=bytes(wrong))
    for _ in range(3):
        with pytest.raises(DigestMismatch, match="is not what the table of contents says"):
            layer.fetcher.ensure(chunk.start, chunk.stop)
    assert len(layer.parts) == 2
    layer.fetcher.ensure(0, 3000)
    layer.fetcher.ensure(layer.table.places[b"c"], layer.table.size)


def test_a_chunk_that_was_wrong_once_is_read_when_it_comes_right(layer: Layer) -> None:
    right = layer.blob
    layer.blob = bytes(len(right))

    def heal() -> None:
        if len(layer.parts) == 2:
            layer.blob = right

    layer.before_part = heal
    assert layer.read(b"big", 0, 10) == CONTENTS[b"big"][:10]


def test_where_no_parts_are_given_the_layer_is_read_whole_and_once(layer: Layer) -> None:
    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    layer.before_part = refuse
    for name in CONTENTS:
        assert layer.read(name) == CONTENTS[name]
    assert (len(layer.parts), layer.wholes) == (1, 1)
    assert layer.stats.value("chunks.whole_layers") == 1
    assert layer.notes == ["the layer is fetched whole: whole blobs only"]


def test_where_no_parts_are_given_and_nothing_can_be_kept_files_are_read_all_the_same(tmp_path: Path) -> None:
    """Held in memory, a few megabytes at a time: the layer is read again up to where a reader is."""

    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    def full(_: int) -> None:
        raise CacheFull("the disk is full")

    layer = Layer(tmp_path, zstd_chunked(*ENTRIES, chunk_size=60_000), reserve=full)
    layer.before_part = refuse
    read = b""
    for at in range(0, 1_200_000, 50_000):
        start = layer.table.places[b"big"] + at
        pieces = dict(layer.fetcher.ensure(start, start + 50_000))
        held = b"".join(pieces[place] for place in sorted(pieces))
        read += held[start - min(pieces) :][:50_000]
    assert read == CONTENTS[b"big"]
    assert layer.wholes == 1
    first = layer.table.chunks[0]
    assert layer.fetcher.ensure(first.start, first.stop) == [(0, CONTENTS[b"f000"])]
    assert layer.wholes == 2
    with pytest.raises(CacheFull):
        layer.fetcher.fetch_all()


def test_where_nothing_can_be_kept_a_wrong_chunk_of_a_whole_layer_is_not_asked_for_at_once_again(
    tmp_path: Path,
) -> None:
    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    def full(_: int) -> None:
        raise CacheFull("the disk is full")

    built = estargz(file("a", b"a" * 3000), file("b", os.urandom(3000)))
    chunk = Table(Listed(built)).chunks[1]
    wrong = bytearray(built.blob)
    wrong[chunk.at + 2000] ^= 1
    layer = Layer(tmp_path, built, served=bytes(wrong), reserve=full)
    layer.before_part = refuse
    for _ in range(3):
        with pytest.raises(DigestMismatch):
            layer.fetcher.ensure(chunk.start, chunk.stop)
    assert layer.wholes == 1
    assert layer.fetcher.ensure(0, 3000) == [(0, b"a" * 3000)]


def test_where_nothing_can_be_kept_a_chunk_that_a_second_reader_came_too_late_for_is_not_wrong(tmp_path: Path) -> None:
    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    def full(_: int) -> None:
        raise CacheFull("the disk is full")

    layer = Layer(
        tmp_path, estargz(file("a", b"a" * 3000), file("b", os.urandom(9000)), file("c", b"c" * 3000)), reserve=full
    )
    first, *_, last = layer.table.chunks
    layer.before_part = refuse

    def want_the_first(at: int) -> None:
        if first.at + first.stored + 1000 < at <= last.at:
            layer.fetcher._requests._needed.add(first.number)  # as a second reader does that joins the flight

    layer.before_block = want_the_first
    assert layer.fetcher.ensure(last.start, last.stop) == [(last.start, b"c" * 3000)]
    layer.before_block = lambda _at: None
    assert layer.fetcher.ensure(first.start, first.stop) == [(first.start, b"a" * 3000)]


def test_a_layer_read_whole_is_not_read_again_for_what_was_wrong_in_it(tmp_path: Path) -> None:
    built = estargz(file("a", b"a" * 3000), file("b", os.urandom(3000)), file("c", b"c" * 3000))
    chunk = Table(Listed(built)).chunks[1]
    wrong = bytearray(built.blob)
    wrong[chunk.at + 2000] ^= 1
    layer = Layer(tmp_path, built, served=bytes(wrong))

    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    layer.before_part = refuse
    for _ in range(3):
        with pytest.raises(DigestMismatch):
            layer.fetcher.ensure(chunk.start, chunk.stop)
    layer.fetcher.ensure(0, 3000)
    layer.fetcher.ensure(layer.table.places[b"c"], layer.table.size)
    assert layer.wholes == 1


def test_a_registry_that_cannot_be_reached_is_asked_again_by_the_next_reader(layer: Layer) -> None:
    def fail() -> None:
        if len(layer.parts) == 1:
            raise RegistryUnavailable("no route")

    layer.before_part = fail
    with pytest.raises(RegistryUnavailable):
        layer.read(b"big", 0, 10)
    assert layer.read(b"big", 0, 10) == CONTENTS[b"big"][:10]


def test_a_reader_whose_time_is_up_leaves_the_fetch_to_others(layer: Layer) -> None:
    going_on = threading.Event()

    def wait() -> None:
        going_on.wait(30)

    layer.before_part = wait
    impatient = Deadline(30)
    waiter = threading.Timer(0.05, impatient.cancel)
    waiter.start()
    with under(impatient), pytest.raises(Exception, match="interrupted"):
        layer.read(b"big", 0, 10)
    going_on.set()
    assert layer.read(b"big", 0, 10) == CONTENTS[b"big"][:10]
    assert len(layer.parts) == 1


def test_random_reads_by_many_give_the_right_bytes(layer: Layer) -> None:
    wrong: list[tuple[int, int]] = []

    def read(seed: int) -> None:
        for step in range(30):
            at = (seed * 7919 + step * 104_729) % 1_100_000
            if layer.read(b"big", at, 100_000) != CONTENTS[b"big"][at : at + 100_000]:
                wrong.append((seed, at))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    fetched = sum(stop - start for start, stop in layer.parts)
    assert fetched < 2 * len(layer.blob)


def test_the_rest_of_a_layer_is_fetched_in_few_requests_and_only_once(layer: Layer) -> None:
    assert layer.read(b"big", 500_000, 100) == CONTENTS[b"big"][500_000:500_100]
    layer.fetcher.fetch_rest()
    assert len(layer.parts) <= 4
    assert sum(stop - start for start, stop in layer.parts) < len(layer.blob) + 200_000
    before = len(layer.parts)
    layer.fetcher.fetch_rest()
    for name in CONTENTS:
        assert layer.read(name) == CONTENTS[name]
    assert len(layer.parts) == before


def test_no_request_of_the_rest_begins_while_a_read_waits(layer: Layer) -> None:
    reading, going_on = threading.Event(), threading.Event()

    def hold() -> None:
        reading.set()
        assert going_on.wait(30)

    layer.before_part = hold
    reader = threading.Thread(target=layer.read, args=(b"big", 500_000, 100))
    reader.start()
    assert reading.wait(30)
    rest = Deadline(30)
    waiting = threading.Thread(target=lambda: layer.foreground.wait_for_none())
    waiting.start()
    threading.Timer(0.2, rest.cancel).start()
    with under(rest), pytest.raises(Interrupted):
        layer.fetcher.fetch_rest()
    assert len(layer.parts) == 1
    going_on.set()
    reader.join(30)
    waiting.join(30)
    assert not waiting.is_alive()
    layer.fetcher.fetch_rest()
    assert len(layer.parts) >= 2


def test_a_read_beside_the_rest_fetches_what_it_needs_alone(tmp_path: Path) -> None:
    entries = [file(f"f{number}", os.urandom(1_000_000)) for number in range(8)]
    layer = Layer(tmp_path, estargz(*entries))
    held, going_on = threading.Event(), threading.Event()

    def hold_the_first() -> None:
        if len(layer.parts) == 1:
            held.set()
            assert going_on.wait(30)

    layer.before_part = hold_the_first
    rest = threading.Thread(target=layer.fetcher.fetch_rest)
    rest.start()
    assert held.wait(30)
    start = layer.table.places[b"f7"]
    layer.fetcher.ensure(start, start + 1_000_000)
    assert layer.parts[1][1] - layer.parts[1][0] < 1_100_000
    going_on.set()
    rest.join(30)
    assert sum(stop - start for start, stop in layer.parts) < len(layer.blob) + 100_000


def test_a_reader_in_an_empty_cache_does_not_wait_for_a_look_at_each_chunk_of_the_layer(tmp_path: Path) -> None:
    """The rest comes from a third of the layer on; to know how much was there before took 0.1 s of a start."""
    layer = Layer(tmp_path, estargz(*SMALL), rest_from=1 / 3)
    layer.table.chunks_by_place = layer.table.sizes_of_chunks = no_chunk  # type: ignore[method-assign]
    layer.read(b"f001")
    assert layer.stats.value("chunks.rests") == 0


def no_chunk() -> NoReturn:
    raise AssertionError("each chunk is looked at")


def test_what_was_fetched_before_counts_for_the_third_from_which_the_rest_comes(tmp_path: Path) -> None:
    entries = [file(f"f{number}", os.urandom(READ_SMALL + 10_000)) for number in range(12)]
    layer = Layer(tmp_path, estargz(*entries))
    layer.fetcher.fetch(
        (layer.table.places[b"f%d" % number], layer.table.places[b"f%d" % number] + 1) for number in (0, 4, 8)
    )
    again = Layer(tmp_path, estargz(*entries), rest_from=1 / 3, is_new=False)
    start = again.table.places[b"f11"]
    again.fetcher.ensure(start, start + 1)
    assert again.stats.value("chunks.rests") == 1


def test_from_a_third_of_a_layer_on_the_rest_comes_by_itself(tmp_path: Path) -> None:
    size = READ_SMALL + 10_000
    entries = [file(f"f{number}", os.urandom(size)) for number in range(12)]
    layer = Layer(tmp_path, estargz(*entries), rest_from=1 / 3)
    for number in (0, 6, 10):
        start = layer.table.places[b"f%d" % number]
        layer.fetcher.ensure(start, start + size)
    assert layer.stats.value("chunks.rests") == 0
    start = layer.table.places[b"f3"]
    layer.fetcher.ensure(start, start + size)
    assert layer.stats.value("chunks.rests") == 1
    layer.fetcher.fetch_rest()  # what is under way is waited for
    requests = len(layer.parts)
    layer.fetcher.ensure(0, layer.table.size)
    assert len(layer.parts) == requests


def test_the_rest_ends_where_there_is_no_room_for_it(tmp_path: Path) -> None:
    layer = Layer(tmp_path, estargz(*[file(f"f{number}", os.urandom(1_000_000)) for number in range(8)]))
    asked: list[int] = []

    def allow(size: int) -> bool:
        asked.append(size)
        return len(asked) < 3

    layer.fetcher.fetch_rest(allow)
    assert len(layer.parts) == 2


def test_where_no_parts_are_given_the_rest_is_the_whole_layer(layer: Layer) -> None:
    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    layer.before_part = refuse
    layer.fetcher.fetch_rest()
    layer.fetcher.fetch_rest()
    for name in CONTENTS:
        assert layer.read(name) == CONTENTS[name]
    assert (len(layer.parts), layer.wholes) == (1, 1)


def test_files_that_are_wanted_together_are_fetched_together(layer: Layer) -> None:
    told: list[tuple[int, int]] = []
    names = [b"f%03d" % number for number in range(10, 30)]
    spans = [(layer.table.places[name], layer.table.places[name] + 3000) for name in names]
    layer.fetcher.fetch(spans, lambda done, of: told.append((done, of)))
    assert len(layer.parts) == 1
    assert told[-1][0] == told[-1][1] == sum(stop - start for start, stop in layer.parts)
    for name in names:
        assert layer.read(name) == CONTENTS[name]
    assert len(layer.parts) == 1
    layer.fetcher.fetch(spans)
    assert len(layer.parts) == 1


def test_a_wrong_chunk_among_files_that_are_wanted_together_is_told(tmp_path: Path) -> None:
    built = estargz(*[file(f"f{number}", os.urandom(300_000)) for number in range(4)])
    chunk = Table(Listed(built)).chunks[2]
    wrong = bytearray(built.blob)
    wrong[chunk.at + 2000] ^= 1
    layer = Layer(tmp_path, built, served=bytes(wrong))
    with pytest.raises(DigestMismatch):
        layer.fetcher.fetch([(0, layer.table.size)])
    with under(NON_BLOCKING):
        layer.fetcher.ensure(0, layer.table.places[b"f2"])


def budget_of(directory: Path, limit: int) -> Budget:
    return Budget(directory, limits=Limits(limit, MinFree(0)))


def test_of_a_layer_larger_than_the_cache_the_rest_does_not_follow(tmp_path: Path) -> None:
    built = estargz(*ENTRIES, chunk_size=60_000)
    for limit in (1 << 20, 64 << 20):
        directory = tmp_path / str(limit)
        (directory / "blobs").mkdir(parents=True)
        (directory / "blobs/others").write_bytes(bytes(1 << 20))
        budget = budget_of(directory, limit)
        assert budget.standing(wait_s=60)
        layer = Layer(directory, built, rest_from=0.3, room=CacheRoom(budget, 1_600_000))
        assert layer.read(b"big", 0, 900_000) == CONTENTS[b"big"][:900_000]
        join_threads("flight ('rest'")
        assert layer.stats.value("chunks.rests") == 1
        is_all_here = not layer.fetcher.data.missing(layer.table.chunks)
        assert is_all_here == (limit > 1 << 20)


def test_where_no_parts_are_given_a_layer_larger_than_the_cache_displaces_no_other(tmp_path: Path) -> None:
    """Each read of such a layer put all of it through the cache, and evicted all that others had there."""

    def refuse() -> None:
        raise RangesRefused("whole blobs only")

    room = CacheRoom(budget_of(tmp_path, 1 << 20), 1_600_000)
    layer = Layer(tmp_path, estargz(*ENTRIES, chunk_size=60_000), room=room)
    layer.before_part = refuse
    for name in (b"f001", b"f050", b"f090"):
        assert layer.read(name) == CONTENTS[name]
    here = [chunk for chunk in layer.table.chunks if chunk not in layer.fetcher.data.missing([chunk])]
    assert sum(chunk.size for chunk in here) < 300_000


def test_files_that_are_wanted_come_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    """The record of a start names first what is read first."""
    far = [file(f"far{number}", os.urandom(300_000)) for number in range(3)]
    lazy = Layer(tmp_path, estargz(*far))
    starts = [lazy.table.places[name] for name in (b"far2", b"far0")]
    lazy.fetcher.fetch((start, start + 1) for start in starts)
    assert [start for start, _ in lazy.parts] == sorted((start for start, _ in lazy.parts), reverse=True)
    assert len(lazy.parts) == 2


def test_what_is_evicted_while_the_rest_of_it_comes_is_no_failure(tmp_path: Path) -> None:
    """A comparison of files larger than the cache ended with "could not be kept"."""

    def evict_all(_size: int) -> None:
        with (tmp_path / "map").open("r+b") as file:
            chunk_map = LockedMap(file.fileno(), 0)
            chunk_map.forget(range(len(lazy.table.chunks)))
            chunk_map.write_evicted()

    lazy = Layer(tmp_path, estargz(*ENTRIES, chunk_size=60_000), reserve=evict_all)
    lazy.fetcher.fetch([(0, lazy.table.size)])
    assert lazy.fetcher.data.missing(lazy.table.chunks)  # the last ones displaced them


def join_threads(name: str) -> None:
    """Wait until the threads whose names begin with *name* have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(60)
