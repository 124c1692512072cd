"""Trace: records the reads of an image's files while a program runs, and makes the record of a start from them.

    trace = Trace()
    build(config, environment, mount=Mount(trace=trace)); … run the program …
    trace.record(files)

opener() wraps the function that opens files. The files that it opens have no backing descriptor and no read_into(), so
there is no passthrough, whose reads the trace would miss, and no read-ahead of files, whose reads are not the
program's. Reads that the page cache answers were recorded at their first time. At most MOST_FILES files, MOST_READS
reads and 2 GiB of pages are recorded; later ones are ignored. Used by app/composition.py, verbs/record.py and
verbs/run.py. Thread rule: any thread; the lock guards the reads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from regfs.errors import WouldBlock
from regfs.model.digest import Digest
from regfs.model.start_record import MOST_FILES, MOST_READS, Read, StartRecord
from regfs.rootfs.paths import files_below
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content, OpenContent, Span

_PAGE = 4096
_MOST_PAGES = 1 << 19  # 2 GiB of reads


class Trace:
    """Collects the reads of files, each page once, in the order of the first reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[Digest, int], int] = {}
        self._pages: set[tuple[int, int]] = set()
        self._reads: list[Read] = []

    def opener(self, open_content: Callable[[Content], OpenContent]) -> Callable[[Content], OpenContent]:
        """Return a function that opens as *open_content* does, and records the reads of files in layers."""

        def traced(content: Content) -> OpenContent:
            opened = open_content(content)
            return TracedContent(opened, content, self) if isinstance(content, Span) else opened

        return traced

    def read(self, span: Span, offset: int, size: int) -> None:
        """Record the pages of *size* bytes at *offset* of the file *span*, unless they were read before."""
        with self._lock:
            file = self._files.setdefault((span.layer, span.offset), len(self._files))
            if file >= MOST_FILES or len(self._pages) >= _MOST_PAGES:
                return
            for page in range(offset // _PAGE, -(-min(offset + size, span.size) // _PAGE)):
                if (file, page) not in self._pages:
                    self._pages.add((file, page))
                    self._add(Read(file, page * _PAGE, min(_PAGE, span.size - page * _PAGE)))

    def _add(self, read: Read) -> None:
        last = self._reads[-1] if self._reads else None
        if last is not None and last.file == read.file and last.offset + last.size == read.offset:
            self._reads[-1] = last._replace(size=last.size + read.size)
        elif len(self._reads) < MOST_READS:
            self._reads.append(read)

    def record(self, files: Rootfs) -> StartRecord:
        """Return the record of the reads of *files*. Walks over all of *files*, on the disk.

        Files whose paths are not UTF-8, or not printable, are left out.
        """
        with self._lock:
            wanted, reads = dict(self._files), list(self._reads)
        paths: dict[int, str] = {}
        for node in files_below(files, files.root):
            content = files.content(node)
            number = wanted.get((content.layer, content.offset)) if isinstance(content, Span) else None
            if number is not None and number not in paths:
                path = os.fsdecode(files.path(node))
                if path.isprintable() and path.encode(errors="replace").decode() == path:
                    paths[number] = path
        ordered = [number for number in dict.fromkeys(read.file for read in reads) if number in paths]
        places = {number: place for place, number in enumerate(ordered)}
        return StartRecord(
            tuple(paths[number] for number in ordered),
            tuple(read._replace(file=places[read.file]) for read in reads if read.file in places),
        )


class TracedContent(OpenContent):
    """An open file whose reads are recorded in *trace*."""

    __slots__ = ("_opened", "_trace", "_traced")

    def __init__(self, opened: OpenContent, span: Span, trace: Trace) -> None:
        super().__init__(-1, opened.size)
        self._opened = opened
        self._traced = span
        self._trace = trace

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes as OpenContent.read_at() does, and record the read."""
        content = self._opened.read_at(offset, size)
        if content:
            self._trace.read(self._traced, offset, len(content))
        return content

    def read_into(self, _buffer: bytearray) -> None:
        """Raise WouldBlock: nothing is read ahead while reads are recorded."""
        raise WouldBlock("while reads are recorded, nothing is read ahead")

    def backing_fd(self) -> int | None:
        """Return None: with passthrough, the reads would not be recorded."""
        return None

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._opened.close()
