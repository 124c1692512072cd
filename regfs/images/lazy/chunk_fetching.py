"""Decides which chunks of a layer are fetched, and when: those that are read, those ahead, and the rest in idle time.

    a read of missing bytes                  the chunks that have them (chunk_requests.py)
    a small read                             also the small chunks around it: files of the same directories
    a reader that continues where it was     also the chunks that follow (chunk_read_ahead.py)
    files that are wanted as a whole         all missing chunks of them, a few requests at once
    the rest of a layer                      one request after the other, each begun while no read waits (foreground.py)

Used by partial_layers.py. Thread rule: any thread; flights fetch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from regfs.errors import CacheFailure, OutOfThreads
from regfs.images.lazy.archive_stream_reads import AHEAD, ArchiveStreamReads
from regfs.images.lazy.cache_room import CacheRoom
from regfs.images.lazy.chunk_ranges import merged
from regfs.images.lazy.chunk_read_ahead import FIRST_AHEAD, SMALL, ReadAhead, SmallReads
from regfs.images.lazy.chunk_requests import ChunkRequests, Report, words
from regfs.images.lazy.chunk_source import ChunkTable, LayerBytes
from regfs.images.lazy.directory_reads import NOTHING, DirectoryReads, FileNames, Ranges
from regfs.images.lazy.foreground import Foreground
from regfs.process.waiting.deadline import current
from regfs.process.waiting.single_flight import Flights
from regfs.store.files.failures import without_frames
from regfs.store.layers.chunks import PartialData, StoredChunk
from regfs.store.layers.content import Pieces
from regfs.telemetry.stats import Stats

_ATTEMPTS = 2
# What is fetched may be evicted before it is read, once or twice.
_MOST_EVICTIONS = 5
# Of a range in which some chunks come by a stream: other layers' streams may displace what memory holds.
_STREAM_ATTEMPTS = 4
# The same between files that are wanted as a whole: some requests are under way at once, so their delay counts less.
_MAX_GAP_OF_FILES = 1 << 17
# A gap of cached chunks up to this size is fetched again, because one large request costs less than two: 20 ms at 100
# Mbit/s.
_MAX_GAP_OF_REST = 1 << 18
# A read of one chunk in such a range waits for the whole range.
_MAX_RANGE_OF_REST = 2 << 20
_CHUNKS_AT_ONCE = 4096
_LOOK_AHEAD = 1 << 18


def _tell_nothing(_done: int = 0, _of: int = 0) -> None:
    pass


def _allow_all(_size: int) -> bool:
    return True


class ChunkFetcher:
    """Fetches the missing chunks of one layer into its data file."""

    def __init__(
        self,
        key: Hashable,
        *,
        table: ChunkTable,
        data: PartialData,
        source: LayerBytes,
        flights: Flights,
        stats: Stats,
        foreground: Foreground,
        note: Callable[[str], None],
        rest_from: float = 1.0,
        room: CacheRoom | None = None,
        streams: bool = False,
        names: FileNames | None = None,
    ) -> None:
        """*key* names the layer among the flights. Once *rest_from* of its bytes are fetched, the rest follows.

        *room* bounds what is fetched beyond what is read.

        *names* tells which files are in one directory.

        *streams*: chunks that are stored nowhere alone (their `stored` is 0) are cut out of the whole layer.
        """
        self._key = key
        self._table = table
        self.data = data
        self._what = source.what
        self._flights = flights
        self._stats = stats
        self._foreground = foreground
        self._rest_from = rest_from
        self._room = room or CacheRoom()
        self._bytes_before = None if data.map.has_any() else 0
        self._bytes_in_all: int | None = None
        self._read_ahead = ReadAhead()
        self._small_reads = SmallReads()
        self._directories = None if names is None else DirectoryReads(names, largest=SMALL)
        self._requests = ChunkRequests(
            key, table=table, data=data, source=source, flights=flights, stats=stats, note=note, room=self._room,
            in_flight=foreground.in_flight,
        )  # fmt: skip
        self._streams: ArchiveStreamReads | None = None
        if streams:
            wrong = self._requests.refuse
            self._streams = ArchiveStreamReads(
                key, blob=source.whole, data=data, flights=flights, stats=stats, wrong=wrong
            )

    def touch(self) -> None:
        """Note that the layer is used: its files stay open."""
        self.data.recent = True

    def ensure(self, start: int, stop: int) -> Pieces:
        """Fetch the missing bytes of `[start, stop)` of the data file; return pieces that could not be written there.

        Waits as the caller's deadline allows (WouldBlock, Interrupted, RegistryTimeout). Raises DigestMismatch if a
        chunk is not what the table says, CacheFailure, and the errors of the network.
        """
        for _ in range(_MOST_EVICTIONS):
            evictions = self.evictions()
            missing, pieces = self._ensure(start, stop)
            if not missing:
                return pieces
            if self.evictions() != evictions:
                self.data.hold_for_a_while()
                continue
            self._requests.raise_if_wrong(missing)
            if self.data.failure is None:
                raise self._requests.wrong_chunk(missing[0])
            # Memory held it, until what others read took its place.
        if self.data.failure is not None:
            raise without_frames(self.data.failure)
        raise CacheFailure(f"{self._what}: {words(missing[0])} is evicted before it is read: the cache is too small")

    def _ensure(self, start: int, stop: int) -> tuple[list[StoredChunk], Pieces]:
        """Fetch as ensure(); return the chunks that are missing all the same, and pieces that are not in the file."""
        for _ in range(_STREAM_ATTEMPTS if self._streams else _ATTEMPTS):
            missing, pieces = self._look(start, stop)
            if not missing:
                return missing, pieces
            current().remaining_s(0.0)
            self._requests.raise_if_wrong(missing)
            if self._streams is not None and not all(chunk.stored for chunk in missing):
                with self._foreground.reading():
                    self._fetch_by_stream(self._streams, missing, stop)
            elif self._requests.gives_parts:
                with self._foreground.reading():
                    if missing := self._requests.join(missing):
                        self._fetch_for(missing, stop)
                self._begin_rest()
            elif self._requests.was_read_whole:
                break
            else:
                ahead = self._table.chunks_between(start, stop + self._room.most_ahead())
                self._requests.fetch_whole(self.data.missing(ahead))
        return self._look(start, stop)

    def evictions(self) -> int:
        """Return how many evictions there were of chunks of the layer, by any process."""
        return self.data.evictions()

    def has(self, start: int, stop: int) -> bool:
        """Whether all bytes of `[start, stop)` are in the data file."""
        return not self.data.missing(self._table.chunks_between(start, stop))

    def _look(self, start: int, stop: int) -> tuple[list[StoredChunk], Pieces]:
        """Return the missing chunks of `[start, stop)`, and the bytes of chunks that are held in memory only."""
        chunks = self._table.chunks_between(start, stop)
        self.data.map.note_use(chunk.number for chunk in chunks)
        missing = self.data.missing(chunks)
        if not missing:
            return missing, ()
        held = self.data.held(missing)
        return [chunk for chunk in missing if chunk not in held], [(chunk.start, held[chunk]) for chunk in held]

    def _fetch_by_stream(self, streams: ArchiveStreamReads, missing: Sequence[StoredChunk], stop: int) -> None:
        """Fetch those of *missing* that are stored nowhere alone, and some that follow."""
        following = self.data.missing(self._table.chunks_between(stop, stop + AHEAD))
        wanted = dict.fromkeys(chunk for chunk in (*missing, *following) if not chunk.stored)
        streams.fetch(wanted)

    def _fetch_for(self, missing: Sequence[StoredChunk], stop: int) -> None:
        """Fetch *missing* and wait for it; begin to fetch what a reader that continues at *stop* will want."""
        most = FIRST_AHEAD if self.data.failure else self._room.most_ahead()  # what cannot be written is held briefly
        ahead = self._read_ahead.of_reader(missing[0].start, most)
        following = self._table.chunks_between(stop, stop + ahead) if ahead else []
        coming = self.data.missing(chunk for chunk in following if chunk.start >= stop)
        self._read_ahead.note((coming or missing)[-1].stop, ahead)
        if not self.data.failure:
            beside = dict.fromkeys([*self._neighbours(missing), *self._around(missing, stop)])
            coming = [*self.data.missing(chunk for chunk in beside if chunk not in missing), *coming]
        self._requests.fetch(missing, list(dict.fromkeys(coming)))

    def _around(self, chunks: Sequence[StoredChunk], stop: int) -> list[StoredChunk]:
        """Return the small chunks around *chunks*, which are read up to *stop*, if that is a small read.

        A start of Python with numpy takes 64 requests so and not 132, and a fifth more bytes. Where a member has
        several chunks, each request brings enough of them: see _neighbours().
        """
        start = chunks[0].start
        if stop - start > SMALL:
            return []
        near = min(self._small_reads.note(start), self._room.most_ahead())
        along = NOTHING if self._directories is None else self._directories.note(start)
        if along.alike:
            self._begin_alike(along.alike)
        around = self._chunks_in(along.here or [(max(0, start - near), stop + near)])
        if len({chunk.at for chunk in around}) < len(around):
            return []
        return [chunk for chunk in around if chunk.size <= SMALL]

    def _chunks_in(self, ranges: Iterable[tuple[int, int]]) -> list[StoredChunk]:
        """Return the chunks of *ranges*, each once."""
        found = {chunk.number: chunk for start, stop in ranges for chunk in self._table.chunks_between(start, stop)}
        return list(found.values())

    def _begin_alike(self, ranges: Ranges) -> None:
        """Begin to fetch *ranges*, a request at a time, each while no read waits."""
        if sum(stop - start for start, stop in ranges) <= self._room.most_ahead():
            fetch = partial(self.fetch, ranges, gives_way=True)
            with suppress(OutOfThreads):
                self._flights.begin(("alike", self._key, ranges[0]), fetch, streams=True)

    def _neighbours(self, chunks: Sequence[StoredChunk]) -> list[StoredChunk]:
        """Return the other chunks in the bytes of a request for *chunks*: other files in the same members.

        A member's files are also neighbours in the data file. Source: ctr-remote's --estargz-min-chunk-size.
        """
        first, last = chunks[0], chunks[-1]
        stop = last.at + max(chunk.stored for chunk in chunks if chunk.at == last.at)
        found = self._table.chunks_between(max(0, first.start - first.inner), first.start)
        found = [chunk for chunk in found if chunk.at == first.at]
        while len(found) < _CHUNKS_AT_ONCE:
            following = self._table.chunks_between(last.stop, last.stop + _LOOK_AHEAD)
            same = [chunk for chunk in following if chunk.at == last.at and chunk.start >= last.stop]
            found += [chunk for chunk in same if chunk.at + chunk.stored <= stop]
            if not same or len(same) < len(following):
                break
            last = same[-1]
        return found

    def fetch_all(self) -> None:
        """Fetch the whole layer, and keep every chunk that is missing."""
        self._requests.fetch_whole()

    def fetch(
        self, spans: Iterable[tuple[int, int]], report: Report = _tell_nothing, *, gives_way: bool = False
    ) -> None:
        """Fetch the missing bytes of *spans*, each `[start, stop)`; *report* gets the bytes done and their total.

        With *gives_way* each request begins while no read waits.
        Waits and raises as ensure() does, and CacheFailure for chunks that could not be written. Where the cache is
        smaller than *spans*, the first of them may have been evicted for the last.
        """
        evictions = self.evictions()
        missing = self.data.missing(self._chunks_in(spans))
        if missing and self.data.refusal is not None:
            raise without_frames(self.data.refusal)
        self._room.require(sum(chunk.size for chunk in missing))
        if missing and self._requests.gives_parts:
            before_each = self._foreground.wait_for_none if gives_way else _tell_nothing
            self._requests.fetch_all(missing, report, max_gap=_MAX_GAP_OF_FILES, before_each=before_each)
        if self.data.missing(missing):
            self._requests.raise_if_wrong(missing)
            if not self._requests.gives_parts and not self._requests.was_read_whole:
                self.fetch_all()
            for chunk in self.data.missing(missing):
                if self.data.failure is None and self.evictions() != evictions:
                    return
                raise CacheFailure(f"{self._what}: {words(chunk)} could not be kept")

    def fetch_rest(self, allow: Callable[[int], bool] = lambda _size: True) -> None:
        """Fetch the missing chunks of the layer in the order of its blob; pauses while a read waits for a registry.

        Ends if *allow* refuses the size of the next request, or if the layer is no longer in use. Waits and
        raises as ensure() does, but skips chunks that are wrong.
        """
        with suppress(ReferenceError):  # of the table
            self._fetch_rest(allow)

    def _fetch_rest(self, allow: Callable[[int], bool]) -> None:
        for chunks in _batches(self._table.chunks_by_place(), _CHUNKS_AT_ONCE):
            for group in merged(self.data.missing(chunks), max_gap=_MAX_GAP_OF_REST, max_range=_MAX_RANGE_OF_REST):
                self._foreground.wait_for_none()
                if not self._requests.gives_parts:
                    return self.fetch_all()
                if not allow(group.stop - group.start):
                    return None
                # Marked this late, so that a read meanwhile fetched only what it needed.
                missing = self.data.missing(group.chunks)
                self._requests.fetch_all(missing, _tell_nothing, max_gap=_MAX_GAP_OF_REST)
                self._stats.count("chunks.background_requests", min(len(missing), 1))
                if missing and len(self.data.missing(missing)) == len(missing):
                    return None  # the disk is full, or the registry has another blob
        return None

    def _begin_rest(self) -> None:
        """Begin to fetch the rest of the layer once *rest_from* of it is fetched."""
        if self._rest_from >= 1.0 or not self._has_reached(self._rest_from):
            return
        self._rest_from = 1.0  # once
        self._stats.count("chunks.rests")
        with suppress(OutOfThreads):
            allow = _allow_all if self._room.fits_layer() else self._room.has
            self._flights.begin(("rest", self._key), partial(self.fetch_rest, allow), streams=True)

    def _has_reached(self, share: float) -> bool:
        # Without a look at each chunk if possible: a reader waits for this, and a big layer has a hundred thousand.
        if self._bytes_in_all is None:
            self._bytes_in_all = self._table.bytes_of_chunks()
        if self._bytes_before is None:
            kept = self._requests.bytes_kept
            self._bytes_before = self.data.map.bytes_of_those_here(self._table.sizes_of_chunks()) - kept
        return self._bytes_before + self._requests.bytes_kept >= share * self._bytes_in_all


def _batches(chunks: Iterator[StoredChunk], size: int) -> Iterator[list[StoredChunk]]:
    while batch := list(islice(chunks, size)):
        yield batch
