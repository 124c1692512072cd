"""Fetches ahead what an image's start reads, once the first file of the image or its program is opened.

    first open of a file below rootfs/    the record of an earlier start, in its order, while no read waits
    open of the image's program           if the cache has no record: its interpreter and libraries, at once
    read of any program or library        the same

A record may be wrong or hostile: it makes regfs fetch at most MAX_REPLAYED bytes of this image. Only for images whose
bytes are fetched chunk by chunk. Used by layer_cache.py, which reports opens, and image.py, which registers images.
Thread rule: any thread; flights fetch.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from cachetools import LRUCache

from regfs.errors import Interrupted, IsADirectory, NotADirectory, NotFound, OutOfThreads, RegfsError
from regfs.model.digest import Digest
from regfs.model.elf import MAGIC
from regfs.process.waiting.deadline import Deadline, under
from regfs.process.waiting.single_flight import Flights
from regfs.rootfs.paths import find
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content, OpenContent, Span
from regfs.telemetry.stats import Stats

if TYPE_CHECKING:
    from regfs.images.starts.program_files import ProgramFiles, Walked
    from regfs.images.starts.records import StartRecords
    from regfs.model.run_config import RunConfig
    from regfs.model.start_record import StartRecord

log = logging.getLogger(__name__)

MAX_REPLAYED = 256 << 20
_MOST_WATCHED = 64
# A record is fetched in pieces of this size, and the later ones of _GROWTH times as much: within a piece what lies near
# each other comes by one request.
_FIRST_PIECE = 4 << 20
_GROWTH = 16

Report = Callable[[str, int, int], None]


def _tell_nothing(_layer: str, _done: int, _of: int) -> None:
    pass


class Contents(Protocol):
    """Fetches bytes of files; implemented by LayerCache."""

    def open(self, content: Content) -> OpenContent: ...

    def fetch(self, contents: Sequence[Content], report: Report, *, gives_way: bool = False) -> None: ...

    def has_all(self, layers: Sequence[Digest]) -> bool: ...


@dataclass(slots=True, eq=False)
class StartOf:
    """An image whose files are fetched as they are read. *name* is for messages.

    *config* may raise BadManifest. *files* may be evicted meanwhile; *layers* are the layers of their spans.
    """

    name: str
    manifest: Digest
    config: Callable[[], RunConfig]
    records: StartRecords
    files: ref[Rootfs]
    layers: Sequence[Digest]
    program: Span | None = None
    is_begun: bool = False
    is_program_fetched: bool = False
    is_known: bool = False
    """Nothing is to be found out about it: a record says what it reads, or all its bytes are here."""
    walked: Walked | None = None
    loaded: deque[Span] = field(default_factory=deque)
    """Programs and libraries that were read, and whose own libraries are to be fetched."""


class Starts:
    """The images of one cache that may start soon."""

    def __init__(self, contents: Contents, *, flights: Flights, stats: Stats) -> None:
        self._contents = contents
        self._flights = flights
        self._stats = stats
        self._deadline = Deadline()
        self._lock = threading.Lock()
        self._watched: LRUCache[Digest, StartOf] = LRUCache(_MOST_WATCHED)
        # By layer, so that an open costs one look-up in a dict.
        self._by_layer: dict[Digest, list[StartOf]] = {}

    def stop(self) -> None:
        """Fetch nothing more."""
        self._deadline.cancel()

    def watch(self, start: StartOf) -> None:
        """Fetch what the start of an image needs once one of its files is opened. Does not wait."""
        with self._lock:
            before = self._watched.get(start.manifest)
            if before is not None:
                before.files = start.files
                return
            self._watched[start.manifest] = start
            self._by_layer = {}
            for each in self._watched.values():
                for layer in each.layers:
                    self._by_layer.setdefault(layer, []).append(each)

    def opened(self, span: Span) -> None:
        """Note that the file *span* was opened, and begin to fetch what it makes likely. Does not wait."""
        for start in self._by_layer.get(span.layer, ()):
            if not start.is_begun:
                start.is_begun = True
                self._begin("start", start, partial(self._first, start, span))
            elif not start.is_program_fetched and _is_at(span, start.program):
                self._begin("program", start, partial(self._fetch_program, start))

    def head_read(self, span: Span, head: bytes) -> None:
        """Note that *head* was read, the first bytes of *span*: if it is a library, fetch what it needs. Does not wait.

        A program that loads a library while it runs waits for one library after the other otherwise.
        """
        if not head.startswith(MAGIC):
            return
        for start in self._by_layer.get(span.layer, ()):
            has_seen = start.walked is not None and (span.layer, span.offset) in start.walked.seen
            if start.is_begun and not start.is_known and not has_seen:
                start.loaded.append(span)
                self._begin("libraries", start, partial(self._fetch_loaded, start))

    def fetch(self, start: StartOf, files: Rootfs, report: Report) -> None:
        """Fetch what the start of an image needs: `regfs prefetch --start`. Waits; raises what fetching raises."""
        record = start.records.here(start.manifest) or start.records.pushed(start.manifest)
        if record is not None:
            self._contents.fetch(list(spans_of(record, files)), report)
        of_program = self._program_files(start, files, report)
        of_program.fetch(of_program.of_config())

    def _begin(self, what: str, start: StartOf, fetch: Callable[[Rootfs], None]) -> None:
        files = start.files()

        def compute() -> None:
            try:
                with under(self._deadline):
                    if files is not None:
                        fetch(files)
            except Interrupted:
                log.debug("%s: nothing more is fetched ahead", start.name)
            except RegfsError as error:
                log.info("%s: nothing more is fetched ahead of its start: %s", start.name, error)

        with suppress(OutOfThreads), under(Deadline()):
            self._flights.begin((what, start.manifest), compute, streams=True)

    def _first(self, start: StartOf, span: Span, files: Rootfs) -> None:
        if self._contents.has_all(start.layers):
            start.is_known = True
            return
        record = start.records.here(start.manifest)
        if record is not None:
            start.is_program_fetched = start.is_known = True
            self._replay(start, record, files)
            return
        programs = self._of_programs(start, files).of_config()
        content = files.content(programs[0]) if programs else None
        start.program = content if isinstance(content, Span) else None
        if _is_at(span, start.program):
            self._begin("program", start, partial(self._fetch_program, start))
        record = start.records.pushed(start.manifest)
        if record is not None:
            start.is_known = True
            self._replay(start, record, files)

    def _replay(self, start: StartOf, record: StartRecord, files: Rootfs) -> None:
        """Fetch the ranges of *record* in order. Each request begins while no read of a user waits."""
        log.info("%s: what its last start read is fetched ahead", start.name)
        self._stats.count("starts.replays")
        for spans in _pieces(spans_of(record, files)):
            self._contents.fetch(spans, _tell_nothing, gives_way=True)
            self._stats.count("starts.replayed_bytes", sum(span.size for span in spans))

    def _fetch_program(self, start: StartOf, files: Rootfs) -> None:
        if start.is_program_fetched:
            return
        start.is_program_fetched = True
        self._stats.count("starts.programs")
        of_program = self._of_programs(start, files)
        of_program.fetch(of_program.of_config())

    def _fetch_loaded(self, start: StartOf, files: Rootfs) -> None:
        while start.loaded:
            self._of_programs(start, files).fetch_loaded(start.loaded.popleft())

    def _of_programs(self, start: StartOf, files: Rootfs) -> ProgramFiles:
        """Return what fetches the files of all programs that run in this start, each once."""
        from regfs.images.starts.program_files import Walked

        start.walked = start.walked or Walked()
        return self._program_files(start, files, walked=start.walked)

    def _program_files(
        self, start: StartOf, files: Rootfs, report: Report = _tell_nothing, walked: Walked | None = None
    ) -> ProgramFiles:
        # Imported here: a mount of cached images never needs it.
        from regfs.images.starts.program_files import ProgramFiles

        return ProgramFiles(
            files,
            start.config(),
            fetch=lambda spans: self._contents.fetch(spans, report),
            read=self._read,
            node_of=files.node_of,
            walked=walked,
        )

    def _read(self, span: Span, offset: int, size: int) -> bytes:
        opened = self._contents.open(span)
        try:
            return opened.read_at(offset, size)
        finally:
            opened.close()


def spans_of(record: StartRecord, files: Rootfs) -> Iterator[Span]:
    """Yield the ranges of *files* that *record* names, in order; ranges that do not exist are skipped."""
    left = MAX_REPLAYED
    found: dict[int, Span | None] = {}
    for read in record.reads:
        if read.file not in found:
            found[read.file] = _span(record.files[read.file], files)
        span = found[read.file]
        size = 0 if span is None else min(read.size, span.size - read.offset, left)
        if span is not None and size > 0:
            left -= size
            yield Span(span.layer, span.offset + read.offset, size)


def _span(path: str, files: Rootfs) -> Span | None:
    try:
        content = files.content(find(files, path.encode(errors="replace")))
    except (NotFound, NotADirectory, IsADirectory):
        return None
    return content if isinstance(content, Span) else None


def _pieces(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Yield *spans* in pieces; see _FIRST_PIECE."""
    piece: list[Span] = []
    size, most = 0, _FIRST_PIECE
    for span in spans:
        piece.append(span)
        size += span.size
        if size >= most:
            yield piece
            piece, size, most = [], 0, _GROWTH * most
    if piece:
        yield piece


def _is_at(span: Span, program: Span | None) -> bool:
    return program is not None and (span.layer, span.offset) == (program.layer, program.offset)
