"""Makes the requests for chunks of one layer: one at a time for each chunk. Every chunk is verified before it is kept.

    chunks that lie near each other in the blob     one range (chunk_ranges.py)
    many readers of one chunk                       one request (process/waiting/single_flight.py)
    a reader of one chunk of many                   goes on as soon as that is unpacked, and that comes first
    a wrong chunk                                   fetched once more, then refused for some seconds
    a server that gives whole blobs only            the whole layer, once; chunks are cut out of the stream;
                                                    on a full disk, up to the last chunk that a reader waits for

Used by chunk_fetching.py, which decides what is fetched and when. Thread rule: any thread; flights fetch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from functools import partial
from itertools import groupby

from cachetools import TTLCache

from regfs.errors import CacheFailure, DigestMismatch, OutOfThreads, RangesRefused, RegistryTimeout
from regfs.images.lazy.cache_room import CacheRoom
from regfs.images.lazy.chunk_arrivals import ChunkArrivals
from regfs.images.lazy.chunk_ranges import MAX_GAP, Group, Window, blob_order, merged
from regfs.images.lazy.chunk_source import ChunkTable, LayerBytes
from regfs.layers.formats.format import Chunk
from regfs.process.waiting.byte_room import ByteRoom
from regfs.process.waiting.deadline import current
from regfs.process.waiting.single_flight import Flights, Landed
from regfs.store.layers.chunks import Batch, PartialData, StoredChunk
from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

_REFUSED_S = 5.0
_WHOLE_AGAIN_S = 600.0
_ATTEMPTS = 2
_REQUESTS_AT_ONCE = 4

Report = Callable[[int, int], None]


class ChunkRequests:
    """The requests for chunks of the layer *key*, whose bytes go to *data*. Each method may wait for the network.

    *gives_parts* is False once the server has refused a range; *bytes_kept* counts what this object has fetched.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        table: ChunkTable,
        data: PartialData,
        source: LayerBytes,
        flights: Flights,
        stats: Stats,
        note: Callable[[str], None],
        room: CacheRoom,
        in_flight: ByteRoom,
    ) -> None:
        """*note* is called once, if the layer must be fetched whole. *in_flight* bounds what all layers request.

        Where it does not fit into the cache, only those chunks are kept then that readers wait for.
        """
        self._key = key
        self._table = table
        self._data = data
        self._source = source
        self._flights = flights
        self._stats = stats
        self._note = note
        self._room = room
        self._in_flight = in_flight
        self._lock = threading.Lock()
        self._coming: dict[int, Group] = {}
        self._unpacking: set[int] = set()  # of those, the ones whose bytes are here
        self._arrivals = ChunkArrivals()
        self._whole_until_s = 0.0
        self._evictions = 0  # when the layer was read whole
        self._wrong: TTLCache[int, bool] = TTLCache(4096, _REFUSED_S)
        # Numbers of chunks that readers wait for while the layer is read whole.
        self._needed: set[int] = set()
        self.gives_parts = True
        self.bytes_kept = 0

    @property
    def was_read_whole(self) -> bool:
        """Whether the whole layer was fetched a moment ago, so that fetching it again would bring nothing new.

        No chunk was evicted since then.
        """
        return time.monotonic() < self._whole_until_s and self._data.map.evictions() == self._evictions

    def fetch_whole(self, needed: Iterable[StoredChunk] = ()) -> None:
        """Fetch the whole layer, and keep every chunk that is missing.

        If the cache cannot take a chunk, memory holds the *needed* ones, and the others are dropped. Raises
        CacheFailure then if no chunk is needed.
        """
        with self._lock:
            self._needed.update(chunk.number for chunk in needed)
        self._flights.run(("whole", self._key), self._take_all, streams=True)

    def fetch(self, needed: Sequence[StoredChunk], ahead: Sequence[StoredChunk]) -> None:
        """Fetch *needed* and wait for it; begin to fetch *ahead*, in the same requests where chunks are near."""
        groups = self._groups([*needed, *ahead], MAX_GAP)
        numbers = {chunk.number for chunk in needed}
        waited_for, others = list[Group](), list[Group]()
        for group in groups:
            (others if numbers.isdisjoint(chunk.number for chunk in group.chunks) else waited_for).append(group)
        for group in others:
            with suppress(OutOfThreads):
                self._flights.begin(self._name(group), partial(self._fetch, group), streams=True)
        for group in waited_for:
            self._wait_for(group, numbers)

    def join(self, needed: Sequence[StoredChunk]) -> list[StoredChunk]:
        """Wait for those of *needed* that came with others and are being unpacked; return those that are missing."""
        numbers = {chunk.number for chunk in needed}
        with self._lock:
            groups = {id(group): group for number in numbers & self._unpacking if (group := self._coming.get(number))}
        for group in groups.values():
            self._wait_for(group, numbers)
        return self._data.missing(needed)

    def _wait_for(self, group: Group, needed: Collection[int]) -> None:
        """Wait until those chunks of *group* are kept that are *needed*, or its flight has landed."""
        name, numbers = self._name(group), [chunk.number for chunk in group.chunks if chunk.number in needed]
        try:
            with self._arrivals.expected(numbers) as arrival:
                landing = self._flights.begin(name, partial(self._fetch, group), streams=True)
                landing.add_done_callback(arrival.end)
                current().wait_for(arrival.future, stalled_since=partial(self._flights.stalled_since, (name,)))
            if landing.done():
                landing.result().result()
        except RangesRefused as refusal:
            self._note_refusal(refusal)
        except RegistryTimeout as timeout:  # a flight knows only the digest of the layer
            raise RegistryTimeout(f"{self._source.what}: {timeout}") from timeout

    def fetch_all(
        self,
        chunks: Sequence[StoredChunk],
        report: Report,
        *,
        max_gap: int = MAX_GAP,
        before_each: Callable[[], object] = lambda: None,
    ) -> None:
        """Fetch *chunks*, a few requests at once; *report* is called with the bytes done and their total.

        The requests are in the order of the first of their *chunks*.
        """
        places = {chunk.number: place for place, chunk in enumerate(chunks)}
        groups = self._groups(chunks, max_gap)
        groups.sort(key=lambda group: min(places.get(chunk.number, 0) for chunk in group.chunks))
        total, done = sum(group.stop - group.start for group in groups), 0
        begun: deque[tuple[Group, Future[Landed[None]]]] = deque()
        for group in [*groups, *[None] * _REQUESTS_AT_ONCE]:
            if group is not None:
                before_each()
                begun.append((group, self._flights.begin(self._name(group), partial(self._fetch, group), streams=True)))
            if begun and (group is None or len(begun) >= _REQUESTS_AT_ONCE):
                first, landing = begun.popleft()
                try:
                    current().wait_for(landing).result()
                except RangesRefused as refusal:
                    return self._note_refusal(refusal)
                done += first.stop - first.start
                report(done, total)
        return None

    def raise_if_wrong(self, chunks: Sequence[StoredChunk]) -> None:
        """Raise DigestMismatch where one of *chunks* was fetched some seconds ago and was wrong."""
        with self._lock:
            wrong = next((chunk for chunk in chunks if chunk.number in self._wrong), None)
        if wrong is not None:
            raise self.wrong_chunk(wrong)

    def refuse(self, chunk: StoredChunk) -> None:
        """Note that *chunk* was fetched and is wrong."""
        with self._lock:
            self._wrong[chunk.number] = True

    def wrong_chunk(self, chunk: StoredChunk) -> DigestMismatch:
        """Return the error about *chunk*."""
        return DigestMismatch(f"{self._source.what}: {words(chunk)} is not what the table of contents says")

    def _name(self, group: Group) -> Hashable:
        return "chunks", self._key, group.chunks[0].number, group.chunks[-1].number

    def _groups(self, wanted: Sequence[StoredChunk], max_gap: int) -> list[Group]:
        """Return the requests for *wanted*: running ones, and new ones for the rest."""
        with self._lock:
            joined = {id(group): group for chunk in wanted if (group := self._coming.get(chunk.number)) is not None}
            new = [chunk for chunk in wanted if chunk.number not in self._coming]
            groups = merged(new, max_gap=max_gap)
            for group in groups:
                self._coming.update({chunk.number: group for chunk in group.chunks})
        return [*joined.values(), *groups]

    def _landed(self, group: Group) -> None:
        # A group whose flight never began stays here; the next reader that wants one of its chunks begins it.
        with self._lock:
            for chunk in group.chunks:
                if self._coming.get(chunk.number) is group:
                    del self._coming[chunk.number]
                    self._unpacking.discard(chunk.number)

    def _fetch(self, group: Group) -> None:
        try:
            missing = self._data.missing(group.chunks)
            for attempt in range(_ATTEMPTS):
                if not missing:
                    return
                if attempt:
                    log.warning("%s: %s; fetched once more", self._source.what, words(missing[0]))
                right = self._fetch_once(Group(tuple(missing)))
                missing = [chunk for chunk in missing if chunk.number not in right]
            with self._lock:
                self._wrong.update({chunk.number: True for chunk in missing})
        finally:
            self._landed(group)

    def _fetch_once(self, group: Group) -> set[int]:
        """Fetch the chunks of *group*; return the numbers of the right ones."""
        with self._in_flight.taken(max(group.stop - group.start, *(chunk.size for chunk in group.chunks))):
            content = self._source.part(group.start, group.stop)
            self._stats.count("chunks.requests")
            self._stats.count("chunks.bytes", len(content))
            with self._lock:
                self._unpacking.update(chunk.number for chunk in group.chunks)
            return self._unpack(group, memoryview(content))

    def _unpack(self, group: Group, content: memoryview) -> set[int]:
        """Keep the chunks of *group*, whose bytes are *content*, those first that a reader waits for."""
        start, right = group.start, set[int]()
        batch = Batch(self._data, self._arrivals.came)
        by_place = groupby(sorted(group.chunks, key=blob_order), key=lambda chunk: chunk.at)
        members = [([chunk.number for chunk in chunks], chunks) for chunks in (list(found) for _, found in by_place)]
        for is_wanted, chunks in self._arrivals.wanted_first(members):
            at = chunks[0].at - start
            stored = bytes(content[at : at + max(chunk.stored for chunk in chunks)])
            right |= self._keep(chunks, stored, batch.add)
            if is_wanted:
                batch.keep()
        batch.keep()
        return right

    def _take_all(self) -> None:
        """Read the layer from start to end, and cut the missing chunks out of it."""
        log.info("%s: read whole", self._source.what)
        self._stats.count("chunks.whole_layers")
        evictions = self._data.map.evictions()
        has_room = not self._needed or self._room.fits_layer()

        def keep(chunk: StoredChunk, content: bytes) -> None:
            nonlocal has_room
            with self._lock:
                is_needed, are_needed = chunk.number in self._needed, bool(self._needed)
                self._needed.discard(chunk.number)
            if is_needed:
                self._data.keep_or_hold(chunk, content)
                has_room = has_room and self._data.failure is None
            elif has_room:
                try:
                    self._data.keep(chunk, content)
                except CacheFailure:
                    has_room = False
                    if not are_needed:
                        raise

        try:
            with closing(current().watch(self._source.whole())) as blocks:
                window = Window(blocks)
                for at, chunks in groupby(self._table.chunks_by_place(), key=lambda chunk: chunk.at):
                    members = [
                        chunk for chunk in self._data.missing(chunks) if has_room or chunk.number in self._needed
                    ]
                    if members:
                        stored = window.take(at, max(chunk.stored for chunk in members))
                        # Before _keep(): a reader may come to need a chunk that has just passed, which is not wrong.
                        needed = {chunk.number for chunk in members} & self._needed
                        for wrong in needed - self._keep(members, stored, keep):
                            self._needed.discard(wrong)
                            with self._lock:
                                self._wrong[wrong] = True
                    if not has_room and not self._needed:
                        return
            if has_room:  # a chunk that is still missing was wrong, and would be again
                self._evictions = evictions
                self._whole_until_s = time.monotonic() + _WHOLE_AGAIN_S
        finally:
            self._needed.clear()

    def _keep(
        self, members: Sequence[StoredChunk], stored: bytes, keep: Callable[[StoredChunk, bytes], None]
    ) -> set[int]:
        by_chunk, right = {_chunk(member): member for member in members}, set[int]()
        for chunk, content in self._source.unpack(list(by_chunk), stored).items():
            keep(by_chunk[chunk], content)
            right.add(by_chunk[chunk].number)
            self.bytes_kept += len(content)
            self._stats.count("chunks.kept")
        return right

    def _note_refusal(self, refusal: RangesRefused) -> None:
        with self._lock:
            is_news, self.gives_parts = self.gives_parts, False
        if is_news:
            self._note(f"{self._source.what} is fetched whole: {refusal}")
            self._stats.count("chunks.refused_ranges")


def words(chunk: StoredChunk) -> str:
    """Return the name of *chunk* in messages."""
    return f"the chunk of {chunk.size} bytes that is stored at {chunk.at}"


def _chunk(stored: StoredChunk) -> Chunk:
    return Chunk(stored.start, stored.size, stored.at, stored.stored, stored.inner, stored.digest)
