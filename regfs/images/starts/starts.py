"""When what a start reads is fetched: as the first file of an image is opened, or its program.

    first open of a file below rootfs/    the record of an earlier start, in its order, while no read waits
    open of the image's program           where there is no record: its interpreter and libraries, at once

Only for images whose bytes are fetched chunk by chunk. Used by layer_cache.py, which says what is opened, and image.py,
which says what is an image. Thread rule: any thread; flights fetch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from cachetools import LRUCache

from regfs.errors import Interrupted, OutOfThreads, RegfsError
from regfs.model.digest import Digest
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content, OpenContent, Span
from regfs.telemetry.stats import Stats
from regfs.waiting.deadline import Deadline, under
from regfs.waiting.single_flight import Flights

if TYPE_CHECKING:
    from regfs.images.starts.program_files import ProgramFiles
    from regfs.model.run_config import RunConfig

log = logging.getLogger(__name__)

_MOST_WATCHED = 64

Report = Callable[[str, int, int], None]


def _tell_nothing(_layer: str, _done: int, _of: int) -> None:
    pass


class Contents(Protocol):
    """What brings bytes: LayerCache."""

    def open(self, content: Content) -> OpenContent: ...

    def fetch(self, contents: Sequence[Content], report: Report) -> None: ...

    def wait_for_reads(self) -> None: ...


@dataclass(slots=True, eq=False)
class StartOf:
    """An image whose files are fetched as they are read. *name* is for messages.

    *config* may raise BadManifest. It does not keep *files* in use; *layers* are what these are spans of.
    """

    name: str
    manifest: Digest
    config: Callable[[], RunConfig]
    files: ref[Rootfs]
    layers: Sequence[Digest]
    program: Span | None = None
    is_begun: bool = False
    is_program_fetched: bool = False


class Starts:
    """The images of one cache whose start may be near."""

    def __init__(self, contents: Contents, *, flights: Flights, stats: Stats) -> None:
        self._contents = contents
        self._flights = flights
        self._stats = stats
        self._deadline = Deadline()
        self._lock = threading.Lock()
        self._watched: LRUCache[Digest, StartOf] = LRUCache(_MOST_WATCHED)
        # By layer, so that an open costs one look.
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
        """Note that the file *span* is opened. Does not wait."""
        for start in self._by_layer.get(span.layer, ()):
            if not start.is_begun:
                start.is_begun = True
                self._begin("start", start, partial(self._first, start, span))
            elif not start.is_program_fetched and _is_at(span, start.program):
                self._begin("program", start, partial(self._fetch_program, start))

    def fetch(self, start: StartOf, files: Rootfs, report: Report) -> None:
        """Fetch what the start of an image needs: `regfs prefetch --start`. Waits; raises what fetching raises."""
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
        programs = self._program_files(start, files).of_config()
        content = files.content(programs[0]) if programs else None
        start.program = content if isinstance(content, Span) else None
        if _is_at(span, start.program):
            self._fetch_program(start, files)

    def _fetch_program(self, start: StartOf, files: Rootfs) -> None:
        if start.is_program_fetched:
            return
        start.is_program_fetched = True
        self._stats.count("starts.programs")
        of_program = self._program_files(start, files)
        of_program.fetch(of_program.of_config())

    def _program_files(self, start: StartOf, files: Rootfs, report: Report = _tell_nothing) -> ProgramFiles:
        # Loaded now: a mount of images that are here never needs it.
        from regfs.images.starts.program_files import ProgramFiles

        return ProgramFiles(
            files, start.config(), fetch=lambda spans: self._contents.fetch(spans, report), read=self._read
        )

    def _read(self, span: Span, offset: int, size: int) -> bytes:
        opened = self._contents.open(span)
        try:
            return opened.read_at(offset, size)
        finally:
            opened.close()


def _is_at(span: Span, program: Span | None) -> bool:
    return program is not None and (span.layer, span.offset) == (program.layer, program.offset)
