"""Fetches the chunks of a layer that are read: few requests, each chunk once, verified before it is kept.

    a read of bytes that are not here        the chunks that have them, in one range where they are near each other
    a reader that goes on where it was       what comes next as well: 256 KiB, then twice as much each time
    many readers of one chunk                one request (waiting/flights.py)
    a server that gives whole blobs only     the whole layer, once, each chunk taken out of it as it comes by

Used by layer_cache.py. Thread rule: any thread; flights fetch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import groupby
from typing import NamedTuple, Protocol

from cachetools import TTLCache

from regfs.errors import DigestMismatch, OutOfThreads, RangesRefused
from regfs.layers.formats.format import Chunk
from regfs.store.chunks import PartialData, StoredChunk
from regfs.store.content import Pieces
from regfs.telemetry.stats import Stats
from regfs.waiting.deadline import current
from regfs.waiting.flights import Flights

log = logging.getLogger(__name__)

MAX_GAP = 1 << 16
"""Bytes between two chunks that are fetched rather than asked around: what 100 Mbit/s carry in 5 ms."""
MAX_RANGE = 8 << 20
FIRST_AHEAD = 1 << 18
MAX_AHEAD = 8 << 20
# A reader goes on where it was if it leaves out no more than that: a header, a file it does not want.
_NEAR = 1 << 16
_READERS = 32
_REFUSED_S = 5.0
_WHOLE_AGAIN_S = 600.0
_ATTEMPTS = 2


class ChunkTable(Protocol):
    """The chunks of one layer, by their place in the data file: the layer's index."""

    def chunks_between(self, start: int, stop: int) -> list[StoredChunk]:
        """Return the chunks that have bytes of `[start, stop)`, in order."""

    def chunks_by_place(self) -> Iterator[StoredChunk]:
        """Yield all chunks in the order of the blob."""


class LayerBytes(NamedTuple):
    """Where a layer's bytes come from. *part* returns those of `[start, stop)`, *whole* yields all; both may wait.

    *unpack* returns the right ones of chunks of one member, from its stored bytes (Format.read). *what* is for
    messages.
    """

    what: str
    part: Callable[[int, int], bytes]
    whole: Callable[[], Iterator[bytes]]
    unpack: Callable[[Sequence[Chunk], bytes], dict[Chunk, bytes]]


class _Group(NamedTuple):
    """Chunks that one request fetches."""

    chunks: tuple[StoredChunk, ...]

    @property
    def start(self) -> int:
        return min(chunk.at for chunk in self.chunks)

    @property
    def stop(self) -> int:
        return max(chunk.at + chunk.stored for chunk in self.chunks)


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
    ) -> None:
        """*key* names the layer among the flights."""
        self._key = key
        self._table = table
        self._data = data
        self._source = source
        self._flights = flights
        self._stats = stats
        self._lock = threading.Lock()
        self._coming: dict[int, _Group] = {}
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
                self._fetch_for(missing, stop)
            elif time.monotonic() < self._whole_until_s:
                break
            else:
                self.fetch_all()
        missing, pieces = self._look(start, stop)
        if missing:
            self._raise_if_wrong(missing)
            raise self._data.failure or self._wrong_chunk(missing[0])
        return pieces

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

    def _name(self, group: _Group) -> Hashable:
        return "chunks", self._key, group.chunks[0].number, group.chunks[-1].number

    def _groups(self, wanted: Sequence[StoredChunk]) -> list[_Group]:
        """Return the requests that bring *wanted*: those that are under way, and new ones for the rest."""
        with self._lock:
            joined = {id(group): group for chunk in wanted if (group := self._coming.get(chunk.number)) is not None}
            new = [chunk for chunk in wanted if chunk.number not in self._coming]
            groups = _merged(new)
            for group in groups:
                self._coming.update({chunk.number: group for chunk in group.chunks})
        return [*joined.values(), *groups]

    def _landed(self, group: _Group) -> None:
        # A group whose flight never began stays; the next reader that wants one of its chunks begins it.
        with self._lock:
            for chunk in group.chunks:
                if self._coming.get(chunk.number) is group:
                    del self._coming[chunk.number]

    def _fetch(self, group: _Group) -> None:
        try:
            missing = self._data.missing(group.chunks)
            for attempt in range(_ATTEMPTS):
                if not missing:
                    return
                if attempt:
                    log.warning("%s: %s; fetched once more", self._source.what, _words(missing[0]))
                right = self._fetch_once(_Group(tuple(missing)))
                missing = [chunk for chunk in missing if chunk.number not in right]
            with self._lock:
                self._wrong.update({chunk.number: True for chunk in missing})
        finally:
            self._landed(group)

    def _fetch_once(self, group: _Group) -> set[int]:
        """Fetch the chunks of *group*; return the numbers of those that are right."""
        start, right = group.start, set[int]()
        content = memoryview(self._source.part(start, group.stop))
        self._stats.count("chunks.requests")
        self._stats.count("chunks.bytes", len(content))
        for at, chunks in groupby(sorted(group.chunks, key=_place), key=lambda chunk: chunk.at):
            members = list(chunks)
            stored = bytes(content[at - start :][: max(chunk.stored for chunk in members)])
            right |= self._keep(members, stored, self._data.keep_or_hold)
        return right

    def _take_all(self) -> None:
        """Read the layer from its start to its end, and take the missing chunks out of it."""
        log.info("%s: read whole", self._source.what)
        self._stats.count("chunks.whole_layers")
        with closing(current().watch(self._source.whole())) as blocks:
            window = _Window(blocks)
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


class _Window:
    """Takes pieces out of a stream, in the order of their places. Holds one piece and one block."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._held = bytearray()
        self._at = 0

    def take(self, at: int, size: int) -> bytes:
        """Return the *size* bytes at *at*, which is not before that of the last call; fewer where the stream ends."""
        while self._at + len(self._held) < at + size and (block := next(self._blocks, b"")):
            self._held += block
            self._drop(at)
        self._drop(at)
        return bytes(self._held[at - self._at : at - self._at + size])

    def _drop(self, at: int) -> None:
        unneeded = min(at - self._at, len(self._held))
        del self._held[:unneeded]
        self._at += unneeded


def _merged(chunks: Sequence[StoredChunk]) -> list[_Group]:
    """Return *chunks* as few ranges: near ones together, those of one member always."""
    groups: list[list[StoredChunk]] = []
    start = stop = -1
    for chunk in sorted(chunks, key=_place):
        end = chunk.at + chunk.stored
        is_same = bool(groups) and groups[-1][-1].at == chunk.at
        if is_same or (groups and chunk.at - stop <= MAX_GAP and end - start <= MAX_RANGE):
            groups[-1].append(chunk)
            stop = max(stop, end)
        else:
            groups.append([chunk])
            start, stop = chunk.at, end
    return [_Group(tuple(group)) for group in groups]


def _place(chunk: StoredChunk) -> tuple[int, int]:
    return chunk.at, chunk.inner


def _chunk(stored: StoredChunk) -> Chunk:
    return Chunk(stored.start, stored.size, stored.at, stored.stored, stored.inner, stored.digest)


def _words(chunk: StoredChunk) -> str:
    return f"the chunk of {chunk.size} bytes that is stored at {chunk.at}"
