"""The ingest of a layer: receive and inflate | hash | read the archive, and write it.

The caller's thread receives and inflates into a ring of blocks (ring_buffer.py), and two others read these in place:
one hashes, one reads the archive and passes the block to the sink. Hashing, inflating and writing release the
interpreter's lock, so that one ingest keeps two cores busy. Nothing that an ingest puts into its sink may be shown
before run_ingest has returned: only then were the size and the diff id (of the archive) found right. The source of the
compressed bytes checks their digest (model/verification.py), and withholds the last chunk of wrong ones.

Used by workers/ingest.py, in a process of its own for big layers. Thread rule: an ingest belongs to its caller's
thread.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterable, Iterator

from regfs.errors import BadContent, DigestMismatch, RegfsError, TooLarge
from regfs.layers.compression.archive_stream import open_archive, open_seekable
from regfs.layers.compression.detection import Chunk, check_media_type
from regfs.layers.ring_buffer import RingBuffer, private_memory
from regfs.layers.rows.archive_rows import ArchiveRows
from regfs.layers.rows.plain_entries import PlainEntries
from regfs.layers.rows.sink import LayerSink
from regfs.layers.spans import AllSpans, FrameSpans
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import TarEntry, TarReader
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.process.threads import start_thread

MAX_HOLES = 64 << 30
"""How many bytes of holes the sparse files of one layer may have: each is hashed as the zero that it is."""

# Fewer and larger blocks mean fewer turns of the interpreter's lock; a small layer is ingested in the daemon's memory.
_BLOCKS, _BLOCK_SIZE, _SMALL_BLOCK_SIZE = 4, 4 << 20, 1 << 18
_SMALL = 1 << 20
_LOOK_S = 0.5
_HASH, _READ = 0, 1


class Progress:
    """The progress of an ingest. One thread writes each number, and any may read it.

    *effort* stands for what another process does beyond the bytes: any number that only grows. *remark*, set at the
    end, says what was odd about the archive and was read all the same; "" if nothing was.
    """

    __slots__ = ("effort", "entries", "inflated", "received", "remark")

    def __init__(self) -> None:
        self.received = 0
        self.inflated = 0
        self.entries = 0
        self.effort = 0
        self.remark = ""

    def numbers(self) -> dict[str, int]:
        """Return the numbers by their names."""
        return {"received": self.received, "inflated": self.inflated, "entries": self.entries}


def run_ingest(
    chunks: Iterable[Chunk],
    *,
    descriptor: Descriptor,
    diff_id: Digest,
    sink: LayerSink,
    progress: Progress,
    report: Callable[[Progress], None] = lambda _: None,
    names_only: bool = False,
) -> None:
    """Put the layer of the verified *chunks* into *sink*, and return once it has proved to be the right one.

    *names_only*: the sink keeps no bytes, so that it gets spans for all of them (spans.py).

    A chunk may be reused when the next is asked for. *report* is called in this thread when each has come, and now and
    then after the last. Blocks for as long as *chunks* does, and raises what it raises.

    Raises:
        DigestMismatch: the size is not that of *descriptor*, or the archive is not the one that *diff_id* names.
        BadLayer, TooLarge, Unsupported: the bytes are the right ones, and no layer that can be shown.
        CacheFailure: the sink could not take it.
    """
    check_media_type(descriptor.media_type)
    _Ingest(descriptor, diff_id, sink, progress, names_only=names_only).run(chunks, report)


class _Ingest:
    def __init__(
        self, descriptor: Descriptor, diff_id: Digest, sink: LayerSink, progress: Progress, *, names_only: bool
    ) -> None:
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._sink = sink
        self._progress = progress
        block_size = _BLOCK_SIZE if descriptor.size >= _SMALL else _SMALL_BLOCK_SIZE
        self._tar = RingBuffer(private_memory(_BLOCKS * block_size), block_size, readers=2)
        self._spans = AllSpans(diff_id) if names_only else FrameSpans(diff_id)
        self._inflate_error: BadContent | None = None
        self._read_error: BaseException | None = None

    def run(self, chunks: Iterable[Chunk], report: Callable[[Progress], None]) -> None:
        threads: list[threading.Thread] = []
        received = _Received(chunks, self._descriptor, self._progress, report)
        try:
            for step in (self._hash, self._read):
                threads.append(start_thread(step, name="ingest of a layer"))
            self._inflate(received)
            # Bad bytes may come of a bad transfer: to tell, all must be received. For other errors nothing more counts.
            while self._goes_on and next(received, None) is not None:
                pass
        finally:
            self._tar.end()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK_S)
                    report(self._progress)
        self._raise_what_is_wrong()
        self._keep_spans()

    @property
    def _goes_on(self) -> bool:
        return self._read_error is None or isinstance(self._read_error, BadContent)

    def _inflate(self, received: _Received) -> None:
        tar = self._tar
        try:
            if isinstance(self._spans, AllSpans):
                archive = open_seekable(received, self._spans)
            else:
                archive = open_archive(received, seek=self._spans.seek)
            size = 1
            while size and self._goes_on:
                number, block = tar.begin()
                size = 0
                try:
                    size = archive.readinto(block)
                finally:
                    tar.give(number, size)
                self._progress.inflated += size
        except BadContent as error:
            if received.has_failed:
                raise
            self._inflate_error = error

    def _hash(self) -> None:
        for block in self._tar.blocks(_HASH):
            self._spans.update(block)

    def _read(self) -> None:
        try:
            read_layer(self._tar.blocks(_READ), self._sink, self._progress)
        except BaseException as error:  # it belongs to the thread that started the ingest
            self._read_error = error
        self._tar.drain(_READ)

    def _raise_what_is_wrong(self) -> None:
        """Raise the error that explains most: a wrong transfer must not be reported as a broken layer."""
        digest, size = self._descriptor.digest, self._descriptor.size
        errors = [error for error in (self._inflate_error, self._read_error) if error is not None]
        for error in errors:
            if not isinstance(error, BadContent):
                raise error
        if self._progress.received != size:
            raise DigestMismatch(f"{digest}: {self._progress.received} bytes came, not {size}")
        if self._inflate_error is None and self._spans.hexdigest() != self._diff_id.encoded:
            raise DigestMismatch(
                f"{digest}: its archive has {self._spans.hexdigest()}, the image's config says {self._diff_id}"
            )
        for error in errors:
            raise type(error)(f"{digest}: {error}") from error

    def _keep_spans(self) -> None:
        if spans := self._spans.spans(self._descriptor.size):
            self._sink.set_blob(self._descriptor.digest)
            for span in spans:
                self._sink.add_span(
                    span.start, span.size, at=span.at, stored=span.stored, inner=span.inner, digest=span.digest
                )
            for restart in self._spans.restarts:
                self._sink.add_restart(restart.at, restart.bits, restart.window)


class _Received:
    """Iterates over the chunks of a layer as they come, and counts them."""

    def __init__(
        self, chunks: Iterable[Chunk], descriptor: Descriptor, progress: Progress, report: Callable[[Progress], None]
    ) -> None:
        self._chunks = iter(chunks)
        self._descriptor = descriptor
        self._progress = progress
        self._report = report
        self.has_failed = False
        """Whether an error came from the chunks, not from what they inflate to."""

    def __iter__(self) -> _Received:
        return self

    def __next__(self) -> Chunk:
        progress = self._progress
        try:
            while not (chunk := next(self._chunks)):
                pass
            progress.received += len(chunk)
            if progress.received > self._descriptor.size:
                raise DigestMismatch(
                    f"{self._descriptor.digest}: more bytes came than the {self._descriptor.size} it has"
                )
        except RegfsError:
            self.has_failed = True
            raise
        self._report(progress)
        return chunk


def read_layer(blocks: Iterator[memoryview], sink: LayerSink, progress: Progress) -> None:
    """Put the archive in *blocks* into *sink*, and take the blocks to their end. Raises BadLayer, TooLarge."""
    feed = ByteFeed(_written(blocks, sink))
    reader = TarReader(feed)
    tree = ArchiveRows(sink.rows)
    plain = PlainEntries(feed, reader, tree)
    sparse_files = _SparseFiles(feed, reader, sink)
    while True:
        progress.entries += plain.read()
        entry = reader.next_entry()
        if entry is None:
            break
        if entry.extents is not None:
            content: int | None = sparse_files.put(entry)
        else:
            content = feed.offset if entry.kind == stat.S_IFREG and entry.size else None
        tree.add(entry, content)
        progress.entries += 1
    tree.finish()
    progress.remark = reader.remark
    feed.drain()


def _written(blocks: Iterator[memoryview], sink: LayerSink) -> Iterator[memoryview]:
    for block in blocks:
        sink.write(block)
        yield block


class _SparseFiles:
    """Expands the sparse files of an archive into a sink."""

    def __init__(self, feed: ByteFeed, reader: TarReader, sink: LayerSink) -> None:
        self._feed = feed
        self._reader = reader
        self._sink = sink
        self._holes = 0

    def put(self, entry: TarEntry) -> int | None:
        """Write what *entry*, whose extents come next, expands to; return the content of its row."""
        extents = entry.extents or []
        self._holes += entry.size - sum(length for _, length in extents)
        if self._holes > MAX_HOLES:
            raise TooLarge(f"{entry.path[:200]!r}: the sparse files of this layer have {self._holes} bytes of holes")
        if not entry.size:
            return None
        file = self._sink.begin_expanded()
        stored_at, stored = self._feed.offset, self._reader.content()
        view = memoryview(b"")
        at = 0
        for offset, length in extents:
            file.skip(offset - at)
            at = offset + length
            while length:
                view = view or next(stored)
                file.write(view[:length])
                length, view = max(0, length - len(view)), view[length:]
        file.skip(entry.size - at)
        for _ in stored:
            pass
        return file.finish(stored_at, extents)
