"""Compares a layer's table of contents with its archive, whenever the whole layer is read anyway.

    the stream of the blob ────┬─▶ its chunks are taken out, for the table's files
                               └─▶ a thread: inflated, read as tar, each entry compared with the table's row

Both are authentic: the manifest's annotation has the digest of the table, the layer's digest is that of the archive. A
builder can still make them differ. Other runtimes then unpack the archive, and regfs shows the table and reports the
differences, once for each layer. It compares names, types, modes, owners, sizes, times (to the second, as tables round
them), devices, links, extended attributes, and the bytes of files: by the digests of their chunks, or by their offset
in the archive where the table has only offsets (SOCI). A comparison takes as much CPU time as reading the layer, so
mounts make none. Used by partial_layers.py. Thread rule: one thread for each comparison; a read waits at most for a few
of its blocks.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from regfs.errors import OutOfThreads, RegfsError
from regfs.layers.compression.detection import decompressed
from regfs.layers.formats.estargz import HIDDEN
from regfs.layers.formats.soci import NAME as SOCI
from regfs.layers.rows.entry_row import packed_attributes
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.paths import components_of
from regfs.layers.tar.tar_reader import HARD_LINK, TarEntry, TarReader
from regfs.model.attributes import Attributes
from regfs.model.layer_entry import ROOT_ROW, EntryFlag, Row, pack_xattrs
from regfs.process.threads import start_thread
from regfs.store.layers.layer_index import LayerIndex

log = logging.getLogger(__name__)

_BLOCK_SIZE = 1 << 18
_MOST_WAITING = 16
_MOST_TOLD = 1000
_MOST_DIRECTORIES = 1 << 16
_MOST_DRAINED = 16 << 20
_PATIENCE_S = 60.0
_S = 1_000_000_000


class TableComparison:
    """One comparison: of the table that *index* was made from, with the archive."""

    def __init__(self, index: LayerIndex) -> None:
        self._index = index
        self._has_only_offsets = index.layout().source == SOCI
        self._directories: dict[tuple[bytes, ...], Row | None] = {}
        self._seen = bytearray(index.last_row() + 1)
        self._differences: dict[bytes, str] = {}

    def differences(self, blocks: Iterator[bytes]) -> dict[bytes, str]:
        """Return the differences by path, 1,000 at most; *blocks* are the layer's blob.

        Raises BadLayer, TooLarge, Unsupported if they are not an archive; the errors of *blocks*; CacheFailure.
        """
        feed = ByteFeed(decompressed(blocks, block_size=_BLOCK_SIZE))
        reader = TarReader(feed)
        for entry in reader:
            components = tuple(components_of(entry.path))
            if self._is_left_out(components):
                continue
            difference = self._difference(entry, components, reader, feed.offset)
            path = b"/".join(components)
            if difference:
                if len(self._differences) < _MOST_TOLD:
                    self._differences[path] = difference
            else:  # the last entry of a name counts
                self._differences.pop(path, None)
        feed.drain()
        self._find_unseen()
        return self._differences

    def _is_left_out(self, components: tuple[bytes, ...]) -> bool:
        """Whether tables leave that entry out: a file of the format itself, or the root."""
        if not components:
            return bool(self._index.row(ROOT_ROW).flags & EntryFlag.IMPLIED)
        return len(components) == 1 and components[0] in HIDDEN and self._row(components) is None

    def _difference(self, entry: TarEntry, components: tuple[bytes, ...], reader: TarReader, offset: int) -> str:
        """Return how *entry* differs from its row, '' if it does not; its bytes begin at *offset* of the archive."""
        row = self._row(components)
        if row is None:
            return "only the archive has it"
        self._seen[row.row] = 1
        if entry.kind == HARD_LINK:
            return self._link_difference(entry, row)
        found, expected = Attributes.unpack(row.attributes), Attributes.unpack(packed_attributes(entry))
        for what in ("mode", "size", "uid", "gid", "rdev"):
            here, there = getattr(found, what), getattr(expected, what)
            if here != there:
                return f"{what} {_shown(what, here)} in the table, {_shown(what, there)} in the archive"
        if abs(found.mtime_ns - expected.mtime_ns) >= _S:
            return f"a time of {found.mtime_ns // _S} in the table, {expected.mtime_ns // _S} in the archive"
        if stat.S_ISLNK(found.mode) and row.target != entry.link:
            return f"a link to {_text(row.target or b'')} in the table, to {_text(entry.link)} in the archive"
        if row.xattrs != (pack_xattrs(entry.xattrs) if entry.xattrs else None):
            return "extended attributes"
        return self._content_difference(row, entry, reader, offset)

    def _link_difference(self, entry: TarEntry, row: Row) -> str:
        if row.flags & EntryFlag.LINK_BELOW:
            below = components_of(row.target or b"")
            return "" if below == components_of(entry.link) else "a hard link to another file"
        target = self._row(tuple(components_of(entry.link)))
        is_same = target is not None and target.inode == row.inode
        return "" if is_same else f"a hard link to {_text(entry.link)} in the archive"

    def _content_difference(self, row: Row, entry: TarEntry, reader: TarReader, offset: int) -> str:
        if not stat.S_ISREG(entry.kind) or not entry.size or row.content is None or entry.extents is not None:
            return ""
        if self._has_only_offsets:
            return "" if row.content == offset else "its bytes are elsewhere in the archive"
        chunks = self._index.chunks_between(row.content, row.content + entry.size)
        if any(not chunk.stored for chunk in chunks):
            return ""  # the chunk does not match the table, which was reported when it was fetched
        ends = {chunk.start - row.content: (chunk.stop - row.content, chunk.digest.encoded) for chunk in chunks}
        hasher, at, end, digest = hashlib.sha256(), 0, 0, ""
        is_hole = False
        for view in reader.content():
            taken = 0
            while taken < len(view):
                if at == end:
                    hasher = hashlib.sha256()
                    is_hole = at not in ends
                    end, digest = ends.get(at, (min((start for start in ends if start > at), default=entry.size), ""))
                part = view[taken : taken + end - at]
                if is_hole and any(part):
                    return "other bytes"
                hasher.update(part)
                taken, at = taken + len(part), at + len(part)
                if at == end and digest and hasher.hexdigest() != digest:
                    return "other bytes"
        return ""

    def _row(self, components: tuple[bytes, ...]) -> Row | None:
        """Return the table's row for a path, None if it has none. Links are not followed."""
        if not components:
            return self._index.row(ROOT_ROW)
        parent = self._directory(components[:-1])
        return None if parent is None else self._index.lookup(parent.row, components[-1])

    def _directory(self, components: tuple[bytes, ...]) -> Row | None:
        if not components:
            return self._index.row(ROOT_ROW)
        if components not in self._directories:
            if len(self._directories) >= _MOST_DIRECTORIES:
                self._directories.clear()
            self._directories[components] = self._row(components)
        return self._directories[components]

    def _find_unseen(self) -> None:
        for row, parent, _, flags, _ in self._index.outline():
            is_named = parent >= 0 and not flags & (EntryFlag.IMPLIED | EntryFlag.OPAQUE_MARKER)
            if is_named and not self._seen[row] and len(self._differences) < _MOST_TOLD:
                self._differences.setdefault(self._index.path_of(row), "only the table has it")


def compared(
    blocks: Iterator[bytes], size: int, comparison: TableComparison, tell: Callable[[Mapping[bytes, str]], None]
) -> Iterator[bytes]:
    """Yield *blocks*, the *size* bytes of a layer's blob, and call *tell* with what *comparison* finds in them.

    *tell* is called once, after the last block was read. It is not called if the blob is not an archive or breaks off;
    other code reports that.
    """
    comparing = _ComparingThread(comparison, tell)
    try:
        comparing.start()
    except OutOfThreads:
        yield from blocks
        return
    left = size
    try:
        for block in blocks:
            left -= len(block)
            comparing.give(block)
            yield block
    finally:
        # A reader that takes chunks out of the stream stops after the last chunk. Only the table and the footer follow.
        with suppress(RegfsError):
            if 0 < left <= _MOST_DRAINED:
                for block in blocks:
                    left -= len(block)
                    comparing.give(block)
        if left:
            comparing.abandon()
        else:
            comparing.finish()


class _ComparingThread:
    """The thread that inflates and compares one blob, fed through a short queue by the thread that reads the blob."""

    def __init__(self, comparison: TableComparison, tell: Callable[[Mapping[bytes, str]], None]) -> None:
        self._comparison = comparison
        self._tell = tell
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread. Raises OutOfThreads."""
        self._thread = start_thread(self._compare, name="flight table comparison")

    def give(self, block: bytes | None) -> None:
        """Hand *block*, or None for the end, to the thread; waits while the queue is full and the thread runs."""
        while not self._ended.is_set():
            with suppress(queue.Full):
                self._waiting.put(block, timeout=0.5)
                return

    def finish(self) -> None:
        """Wait for the result, after the whole blob was given."""
        self.give(None)
        self._thread.join(_PATIENCE_S)

    def abandon(self) -> None:
        """End the thread without a result, because the blob broke off."""
        self._ended.set()
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)

    def _compare(self) -> None:
        try:
            found = self._comparison.differences(self._taken())
            if not self._ended.is_set():
                self._tell(found)
        except RegfsError as error:
            log.info("a table of contents is not compared: %s", error)
        except Exception:  # a bug here must not cost the read
            log.exception("a table of contents is not compared")
        finally:
            self._ended.set()

    def _taken(self) -> Iterator[bytes]:
        while (block := self._waiting.get()) is not None:
            yield block


def words(differences: Mapping[bytes, str]) -> str:
    """Return the message to users about *differences*, of which there is at least one."""
    path, what = next(iter(differences.items()))
    first = f"{_text(path)}: {what}"
    if len(differences) == 1:
        return f"its table of contents and its archive differ; regfs shows the table. {first}"
    many = f"{_MOST_TOLD} files and more" if len(differences) >= _MOST_TOLD else f"{len(differences)} files"
    return f"its table of contents and its archive differ in {many}; regfs shows the table. The first: {first}"


def _shown(what: str, value: int) -> str:
    return f"{value:o}" if what == "mode" else str(value)


def _text(path: bytes) -> str:
    return path[:300].decode(errors="backslashreplace")
