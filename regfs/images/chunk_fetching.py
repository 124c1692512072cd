"""Fetches the chunks of a layer that are read: few requests, each chunk once, verified before it is kept.

    a read of bytes that are not here        the chunks that have them, in one range where they are near each other
    a reader that goes on where it was       what comes next as well: 256 KiB, then twice as much each time
    many readers of one chunk                one request (waiting/single_flight.py)
    files that are wanted as a whole         all that is missing of them, a few requests at once
    the rest of a layer                      one request after the other, each begun while no read waits (foreground.py)
    a server that gives whole blobs only     the whole layer, once, each chunk taken out of it as it comes by

Used by layer_cache.py. Thread rule: any thread; flights fetch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from functools import partial
from itertools import groupby, islice

from cachetools import TTLCache

from regfs.errors import CacheFailure, DigestMismatch, OutOfThreads, RangesRefused
from regfs.images.chunk_ranges import MAX_GAP, Group, Window, merged, place
from regfs.images.chunk_source import ChunkTable, LayerBytes
from regfs.images.foreground import Foreground
from regfs.layers.formats.format import Chunk
from regfs.store.chunks import PartialData, StoredChunk
from regfs.store.content import Pieces
from regfs.telemetry.stats import Stats
from regfs.waiting.deadline import current
from regfs.waiting.single_flight import Flights, Landed

log = logging.getLogger(__name__)

FIRST_AHEAD = 1 << 18
MAX_AHEAD = 8 << 20
# A reader goes on where it was if it leaves out no more than that: a header, a file it does not want.
_NEAR = 1 << 16
_READERS = 32
_REFUSED_S = 5.0
_WHOLE_AGAIN_S = 600.0
_ATTEMPTS = 2
# Where most is missing, few requests are worth more than what was fetched already.
_MAX_GAP_OF_REST = 1 << 20
# What a read may have to wait for that wants one of its chunks.
_MAX_RANGE_OF_REST = 2 << 20
_CHUNKS_AT_ONCE = 4096
_REQUESTS_AT_ONCE = 4

Report = Callable[[int, int], None]


def _tell_nothing(_done: int, _of: int) -> None:
    pass


class ChunkFetcher:
    """Fetches what is missing in the data file of one layer."""

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
        rest_from: float = 1.0,
    ) -> None:
        """*key* names the layer among the flights. Once *rest_from* of its bytes are here, the rest is fetched too."""
        self._key = key
        self._table = table
        self._data = data
        self._source = source
        self._flights = flights
        self._stats = stats
        self._foreground = foreground
        self._rest_from = rest_from
        self._bytes_here: int | None = None
        self._bytes_in_all = 0
        self._lock = threading.Lock()
        self._coming: dict[int, Group] = {}
        self._gives_parts = True
        self._whole_until_s = 0.0
        # Where each of the readers will go on, and how far ahead was fetched for it.
        self._readers: OrderedDict[int, int] = OrderedDict()
        self._wrong: TTLCache[int, bool] = TTLCache(4096, _REFUSED_S)

    def touch(self) -> None:
        """Note that the layer is used: its files stay open."""
        self._data.recent = True

    def ensure(self, start: int, stop: int) -> Pieces:
        """See to it that the bytes `[start, stop)` of the data file are here; return what could not be written there.

        Waits as the caller's deadline allows (WouldBlock, Interrupted, RegistryTimeout). Raises DigestMismatch where
        a chunk is not what the table says, CacheFailure, and what the network brings.
        """
        for _ in range(_ATTEMPTS):
            missing, pieces = self._look(start, stop)
            if not missing:
                return pieces
            current().remaining_s(0.0)
            self._raise_if_wrong(missing)
            if self._gives_parts:
                with self._foreground.reading():
                    self._fetch_for(missing, stop)
                self._begin_rest()
            elif time.monotonic() < self._whole_until_s:
                break
            else:
                self.fetch_all()
        missing, pieces = self._look(start, stop)
        if missing:
            self._raise_if_wrong(missing)
            raise self._data.failure or self._wrong_chunk(missing[0])
        return pieces

    def has(self, start: int, stop: int) -> bool:
        """Tell whether all bytes of `[start, stop)` are in the data file."""
        return not self._data.missing(self._table.chunks_between(start, stop))

    def _look(self, start: int, stop: int) -> tuple[list[StoredChunk], Pieces]:
        """Return the chunks of `[start, stop)` that are nowhere here, and the bytes of those in memory alone."""
        missing = self._data.missing(self._table.chunks_between(start, stop))
        if not missing:
            return missing, ()
        held = self._data.held(missing)
        return [chunk for chunk in missing if chunk not in held], [(chunk.start, held[chunk]) for chunk in held]

    def fetch_all(self) -> None:
        """Fetch the whole layer, and keep every chunk that is missing."""
        self._flights.run(("whole", self._key), self._take_all, streams=True)
        # What is still missing then is wrong, and would be wrong again.
        self._whole_until_s = time.monotonic() + _WHOLE_AGAIN_S

    def fetch(self, spans: Iterable[tuple[int, int]], report: Report = _tell_nothing) -> None:
        """See to it that all bytes of *spans*, each `[start, stop)`, are here; *report* hears how many of how many are.

        Waits and raises as ensure() does, and CacheFailure for what could not be kept.
        """
        wanted = {chunk.number: chunk for span in spans for chunk in self._table.chunks_between(*span)}
        missing = self._data.missing(wanted.values())
        if missing and self._gives_parts:
            self._fetch_groups(self._groups(missing), report)
        if self._data.missing(missing):
            self._raise_if_wrong(missing)
            if not self._gives_parts and time.monotonic() >= self._whole_until_s:
                self.fetch_all()
            for chunk in self._data.missing(missing):
                raise CacheFailure(f"{self._source.what}: {_words(chunk)} could not be kept")

    def fetch_rest(self, allow: Callable[[int], bool] = lambda _size: True) -> None:
        """Fetch what is missing of the layer in the order of its blob, as long as no read waits for its bytes.

        Ends before a request of so many bytes that *allow* says no to, and where the layer is no longer in use. Waits
        and raises as ensure() does, but a chunk that is wrong stays missing.
        """
        with suppress(ReferenceError):  # of the table
            self._fetch_rest(allow)

    def _fetch_rest(self, allow: Callable[[int], bool]) -> None:
        for chunks in _batches(self._table.chunks_by_place(), _CHUNKS_AT_ONCE):
            for group in merged(self._data.missing(chunks), max_gap=_MAX_GAP_OF_REST, max_range=_MAX_RANGE_OF_REST):
                self._foreground.wait_for_none()
                if not self._gives_parts:
                    return self.fetch_all()
                if not allow(group.stop - group.start):
                    return None
                # Only now, so that a read meanwhile fetched what it needed alone.
                missing = self._data.missing(group.chunks)
                self._fetch_groups(self._groups(missing, max_gap=_MAX_GAP_OF_REST), _tell_nothing)
                self._stats.count("chunks.background_requests", min(len(missing), 1))
                if missing and len(self._data.missing(missing)) == len(missing):
                    return None  # a disk that takes nothing, or a registry that has something else
        return None

    def _fetch_groups(self, groups: Sequence[Group], report: Report) -> None:
        """Fetch *groups*, a few at once."""
        total, done = sum(group.stop - group.start for group in groups), 0
        begun: deque[tuple[Group, Future[Landed[None]]]] = deque()
        for group in [*groups, *[None] * _REQUESTS_AT_ONCE]:
            if group is not None:
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

    def _begin_rest(self) -> None:
        """Begin to fetch the rest, where so much is here that it will be wanted."""
        if self._rest_from >= 1.0 or not self._has_reached(self._rest_from):
            return
        self._rest_from = 1.0  # once
        self._stats.count("chunks.rests")
        with suppress(OutOfThreads):
            self._flights.begin(("rest", self._key), self.fetch_rest, streams=True)

    def _has_reached(self, share: float) -> bool:
        if self._bytes_here is None:
            chunks = list(self._table.chunks_by_place())
            missing = sum(chunk.size for chunk in self._data.missing(chunks))
            self._bytes_in_all = sum(chunk.size for chunk in chunks)
            self._bytes_here = self._bytes_in_all - missing
        return self._bytes_here >= share * self._bytes_in_all

    def _fetch_for(self, missing: Sequence[StoredChunk], stop: int) -> None:
        """Fetch *missing*, and what a reader that goes on will want; waits for the former alone."""
        ahead = self._ahead_of(missing[0].start)
        following = self._table.chunks_between(stop, stop + ahead) if ahead else []
        wanted = [*missing, *self._data.missing(chunk for chunk in following if chunk.start >= stop)]
        self._note_reader(wanted[-1].stop, ahead)
        groups = self._groups(wanted)
        needed = {chunk.number for chunk in missing}
        waited_for = [group for group in groups if any(chunk.number in needed for chunk in group.chunks)]
        for group in groups:
            if group not in waited_for:
                with suppress(OutOfThreads):
                    self._flights.begin(self._name(group), partial(self._fetch, group), streams=True)
        for group in waited_for:
            try:
                self._flights.run(self._name(group), partial(self._fetch, group), streams=True)
            except RangesRefused as refusal:
                self._note_refusal(refusal)

    def _name(self, group: Group) -> Hashable:
        return "chunks", self._key, group.chunks[0].number, group.chunks[-1].number

    def _groups(self, wanted: Sequence[StoredChunk], *, max_gap: int = MAX_GAP) -> list[Group]:
        """Return the requests that bring *wanted*: those that are under way, and new ones for the rest."""
        with self._lock:
            joined = {id(group): group for chunk in wanted if (group := self._coming.get(chunk.number)) is not None}
            new = [chunk for chunk in wanted if chunk.number not in self._coming]
            groups = merged(new, max_gap=max_gap)
            for group in groups:
                self._coming.update({chunk.number: group for chunk in group.chunks})
        return [*joined.values(), *groups]

    def _landed(self, group: Group) -> None:
        # A group whose flight never began stays; the next reader that wants one of its chunks begins it.
        with self._lock:
            for chunk in group.chunks:
                if self._coming.get(chunk.number) is group:
                    del self._coming[chunk.number]

    def _fetch(self, group: Group) -> None:
        try:
            missing = self._data.missing(group.chunks)
            for attempt in range(_ATTEMPTS):
                if not missing:
                    return
                if attempt:
                    log.warning("%s: %s; fetched once more", self._source.what, _words(missing[0]))
                right = self._fetch_once(Group(tuple(missing)))
                missing = [chunk for chunk in missing if chunk.number not in right]
            with self._lock:
                self._wrong.update({chunk.number: True for chunk in missing})
        finally:
            self._landed(group)

    def _fetch_once(self, group: Group) -> set[int]:
        """Fetch the chunks of *group*; return the numbers of those that are right."""
        start, right = group.start, set[int]()
        content = memoryview(self._source.part(start, group.stop))
        self._stats.count("chunks.requests")
        self._stats.count("chunks.bytes", len(content))
        for at, chunks in groupby(sorted(group.chunks, key=place), key=lambda chunk: chunk.at):
            members = list(chunks)
            stored = bytes(content[at - start :][: max(chunk.stored for chunk in members)])
            right |= self._keep(members, stored, self._data.keep_or_hold)
        return right

    def _take_all(self) -> None:
        """Read the layer from its start to its end, and take the missing chunks out of it."""
        log.info("%s: read whole", self._source.what)
        self._stats.count("chunks.whole_layers")
        with closing(current().watch(self._source.whole())) as blocks:
            window = Window(blocks)
            for at, chunks in groupby(self._table.chunks_by_place(), key=lambda chunk: chunk.at):
                members = self._data.missing(chunks)
                if members:
                    self._keep(members, window.take(at, max(chunk.stored for chunk in members)), self._data.keep)

    def _keep(
        self, members: Sequence[StoredChunk], stored: bytes, keep: Callable[[StoredChunk, bytes], None]
    ) -> set[int]:
        by_chunk, right = {_chunk(member): member for member in members}, set[int]()
        for chunk, content in self._source.unpack(list(by_chunk), stored).items():
            keep(by_chunk[chunk], content)
            right.add(by_chunk[chunk].number)
            if self._bytes_here is not None:
                self._bytes_here += len(content)
            self._stats.count("chunks.kept")
        return right

    def _ahead_of(self, start: int) -> int:
        """Return how many bytes a reader is to be ahead that goes on at *start*; 0 for one that is new there."""
        with self._lock:
            before = next((at for at in self._readers if at <= start <= at + _NEAR), None)
            most = FIRST_AHEAD if self._data.failure else MAX_AHEAD  # what cannot be kept is held for a moment alone
            return 0 if before is None else min(max(FIRST_AHEAD, 2 * self._readers.pop(before)), most)

    def _note_reader(self, stop: int, ahead: int) -> None:
        """Note that what a reader wants is fetched up to *stop*."""
        with self._lock:
            self._readers[stop] = ahead
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)

    def _raise_if_wrong(self, missing: Sequence[StoredChunk]) -> None:
        with self._lock:
            wrong = next((chunk for chunk in missing if chunk.number in self._wrong), None)
        if wrong is not None:
            raise self._wrong_chunk(wrong)

    def _wrong_chunk(self, chunk: StoredChunk) -> DigestMismatch:
        return DigestMismatch(f"{self._source.what}: {_words(chunk)} is not what the table of contents says")

    def _note_refusal(self, refusal: RangesRefused) -> None:
        with self._lock:
            is_news, self._gives_parts = self._gives_parts, False
        if is_news:
            log.warning("%s: the layer is fetched whole: %s", self._source.what, refusal)
            self._stats.count("chunks.refused_ranges")


def _batches(chunks: Iterator[StoredChunk], size: int) -> Iterator[list[StoredChunk]]:
    while batch := list(islice(chunks, size)):
        yield batch


def _chunk(stored: StoredChunk) -> Chunk:
    return Chunk(stored.start, stored.size, stored.at, stored.stored, stored.inner, stored.digest)


def _words(chunk: StoredChunk) -> str:
    return f"the chunk of {chunk.size} bytes that is stored at {chunk.at}"
