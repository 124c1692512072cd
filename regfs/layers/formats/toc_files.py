"""Adds the plain entries of a table of contents, which nearly all are, to rows and chunks, a run of them in one step.

toc_text.py says what is plain in the text. Here such an entry has a new name in a directory that is known, and the
bytes of a file are alone in their member. Any other entry is left to toc.py, which reads these too and comes to the
same rows and chunks; tests hold one against the other. Used by toc_ingest.py; one thread.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple, Protocol

from regfs.errors import BadLayer
from regfs.layers.formats.format import MAX_MEMBER
from regfs.layers.formats.toc import LEAST_RANGE, modified_ns
from regfs.layers.formats.toc_text import BoundedRun, PlainRun
from regfs.layers.rows.archive_rows import DIRECTORY, FILE, SYMLINK
from regfs.layers.rows.table_rows import TableRows
from regfs.layers.tar.tar_reader import owner_of
from regfs.model.attributes import Attributes, with_sizes, without_size

_STATES: dict[str | None, int] = {"reg": FILE, "dir": DIRECTORY, "symlink": SYMLINK, "chunk": FILE}
_TYPES: dict[str | None, tuple[int, int]] = {
    "reg": (stat.S_IFREG, 1),
    "dir": (stat.S_IFDIR, 2),
    "symlink": (stat.S_IFLNK, 1),
    "chunk": (stat.S_IFREG, 1),
}
_DIRECTORY_SIZE = 4096
_LINK_MODE = 0o777
# Where fewer than one entry in so many are chunks, the files that have them are left.
_FEW = 32
_LEAST_AT_ONCE, _MOST_AT_ONCE = 4, 4096
_MOST_REMEMBERED = 1 << 14

_Key = tuple[str | None, ...]
"""Kind, mode, owner, group and time, as they are written."""


class FileSink(Protocol):
    """Takes files."""

    def places(self, sizes: Sequence[int]) -> list[int]:
        """Return where in the data file files of these *sizes* would begin, and where one behind them would."""

    def add_chunks(
        self, starts: Sequence[int], sizes: Sequence[int], ats: Sequence[int], stored: Sequence[int],
        digests: Sequence[str | None], *, end: int,
    ) -> None:  # fmt: skip
        """Add the chunks of the next files, the next one after which begins at *end*.

        At *starts* of the data file they have *sizes* bytes of *digests*, alone in the members at *ats* of the blob.
        """


class _Chunks(NamedTuple):
    """Chunks in order: the number of the file, the offset in it, and what FileSink.add_chunks() takes."""

    files: Sequence[int]
    offsets: Sequence[int]
    sizes: Sequence[int]
    ats: Sequence[int]
    stored: Sequence[int]
    digests: Sequence[str | None]

    def of_files(self, begin: int, end: int) -> _Chunks:
        """Return the chunks of the files from *begin* to *end*."""
        part = slice(bisect_left(self.files, begin), bisect_left(self.files, end))
        return _Chunks(
            self.files[part], self.offsets[part], self.sizes[part], self.ats[part], self.stored[part],
            self.digests[part],
        )  # fmt: skip


class _Columns(NamedTuple):
    """What becomes of the files, directories and links of a run; *sizes* are of bytes in the blob.

    *numbers* are those of the entries in the run, and of the one behind it. *odd* ones are left.
    """

    numbers: Sequence[int]
    kinds: Sequence[str | None]
    paths: list[bytes]
    states: bytes
    attributes: list[bytes]
    sizes: list[int]
    targets: list[bytes]
    chunks: _Chunks
    odd: list[int]

    def behind(self, number: int) -> int:
        """Return the number of the entry behind the file *number* and what chunks of it are left."""
        behind = number + 1
        while behind < len(self.kinds) and self.kinds[behind] == "chunk":
            behind += 1
        return behind

    def entries(self, begin: int, end: int) -> range:
        """Return the numbers in the run of the entries from *begin* to *end*."""
        return range(self.numbers[begin], self.numbers[end])


class TocFiles:
    """Adds plain entries to *tree*, and the bytes of files to *sink*. Those named *hidden* do not count as plain."""

    def __init__(self, tree: TableRows, sink: FileSink, *, hidden: frozenset[bytes] = frozenset()) -> None:
        self._tree = tree
        self._sink = sink
        self._hidden = hidden
        # Without sizes; few make up an image.
        self._attributes: dict[_Key, bytes] = {}
        # How many entries are tried at once: few after one was left, so that a table of such entries takes no longer.
        self._step = _MOST_AT_ONCE

    def take(self, bounded: BoundedRun) -> Iterator[range]:
        """Add the entries of a run; yield the numbers of each file that is not plain after all. See Take."""
        columns = self._columns(bounded)
        at, count = 0, len(columns.paths)
        for odd in (*columns.odd, count):
            while at < odd:
                wanted = min(odd - at, self._step)
                taken = self._add(columns, at, at + wanted)
                at += taken
                if taken == wanted:
                    self._step = min(2 * self._step, _MOST_AT_ONCE)
                    continue
                self._step = _LEAST_AT_ONCE
                yield columns.entries(at, at + 1)
                at += 1
            if at == odd < count:
                at = columns.behind(odd)
                yield columns.entries(odd, at)

    def _columns(self, bounded: BoundedRun) -> _Columns:
        run, ends = bounded
        numbers: Sequence[int] = range(len(run) + 1)
        pieces = run.pieces()
        has_many = len(pieces) * _FEW > len(run)
        if has_many:
            numbers = [*run.files(), len(run)]
            run, ends = run.without_chunks(), [ends[number] for number in numbers[:-1]]
        paths, kinds, targets = run.paths, run.column("type"), [b""] * len(run)
        sizes, shown = run.sizes.copy(), run.sizes.copy()
        rests = self._rests(run)
        odd = {number for number, rest in enumerate(rests) if not rest}
        for number in [number for number, kind in enumerate(kinds) if kind != "reg"]:
            sizes[number], shown[number] = 0, _DIRECTORY_SIZE
            if kinds[number] == "dir":
                paths[number] = paths[number].removesuffix(b"/")
                continue
            targets[number] = (run.column("linkName")[number] or "").encode()
            shown[number] = len(targets[number])
            if not targets[number]:
                odd.add(number)
        if run.may_have(self._hidden):
            odd |= {number for number, path in enumerate(paths) if path.rpartition(b"/")[2] in self._hidden}
        if has_many:
            cut = sorted({bisect_right(numbers, piece) - 1 for piece in pieces})
            whole = sizes.copy()
            for file in cut:
                whole[file] = 0
            chunks, unusual = _whole_files(run, ends, whole)
            chunks, cut = _with_cut_files(chunks, bounded, sizes, numbers, cut)
            odd.update(unusual, cut)
        else:
            chunks, unusual = _whole_files(run, ends, sizes)
            odd.update(unusual, pieces, (piece - 1 for piece in pieces if piece))
        return _Columns(
            numbers, kinds, paths, bytes(map(_STATES.__getitem__, kinds)), with_sizes(rests, shown), sizes, targets,
            chunks, sorted(odd),
        )  # fmt: skip

    def _add(self, columns: _Columns, at: int, stop: int) -> int:
        """Add the entries from *at* to *stop*, up to one that the tree does not take; return how many."""
        sizes = columns.sizes[at:stop]
        starts = self._sink.places(sizes)
        taken = self._tree.add_new_entries(
            columns.paths[at:stop], columns.states[at:stop], columns.attributes[at:stop],
            [start if size else None for start, size in zip(starts, sizes, strict=False)],
            columns.targets[at:stop],
        )  # fmt: skip
        files, offsets, lengths, ats, stored, digests = columns.chunks.of_files(at, at + taken)
        if files:
            begins = [starts[file - at] + offset for file, offset in zip(files, offsets, strict=True)]
            self._sink.add_chunks(begins, lengths, ats, stored, digests, end=starts[taken])
        return taken

    def _rests(self, run: PlainRun) -> list[bytes]:
        """Return the attributes of each entry but for its size; b"" where one of them is odd."""
        known = self._attributes
        keys = zip(*map(run.column, ("type", "mode", "uid", "gid", "modtime")), strict=True)
        return [known.get(key) or self._new_rest(key) for key in keys]

    def _new_rest(self, key: _Key) -> bytes:
        kind, mode, uid, gid, time = key
        type_bits, nlink = _TYPES[kind]
        if len(self._attributes) >= _MOST_REMEMBERED:
            self._attributes.clear()
        try:
            bits = _LINK_MODE if type_bits == stat.S_IFLNK else int(mode or 0) & 0o7777
            found = Attributes(
                type_bits | bits, 0, nlink, owner_of(int(uid or 0)), owner_of(int(gid or 0)), 0, modified_ns(time)
            )
            packed = without_size(found.pack())
        except BadLayer:
            packed = b""
        self._attributes[key] = packed
        return packed


def _stops(run: PlainRun) -> list[int]:
    """Return where the members end of files that say it, and 0 for the others."""
    written = run.column("endOffset")
    return [int(stop) if stop else 0 for stop in written] if any(written) else [0] * len(run)


def _whole_files(run: PlainRun, ends: list[int], sizes: list[int]) -> tuple[_Chunks, list[int]]:
    """Return the chunks of files in one piece, of these *sizes*; and the numbers of those that are odd."""
    digests = run.digests()
    stored, odd = [0] * len(run), []
    columns = zip(range(len(run)), sizes, run.offsets, _stops(run), ends, digests, strict=True)
    for number, size, at, stop, end, digest in columns:
        if size:
            here = (stop or end) - at
            if at and 0 < here <= end - at and size <= MAX_MEMBER and digest:
                most = 2 * size + LEAST_RANGE
                stored[number] = here if here < most else most
            else:
                odd.append(number)
    files = list(compress(range(len(run)), sizes))
    lengths, ats, at_most = (list(compress(column, sizes)) for column in (sizes, run.offsets, stored))
    return _Chunks(files, [0] * len(files), lengths, ats, at_most, list(compress(digests, sizes))), odd


def _with_cut_files(
    chunks: _Chunks, bounded: BoundedRun, sizes: list[int], numbers: Sequence[int], cut: list[int]
) -> tuple[_Chunks, list[int]]:
    """Return *chunks* and those of the files *cut*, which begin at *numbers* of the run; and those that are odd.

    The rules are those of Toc.
    """
    run, ends = bounded
    columns = list(zip(
        run.numbers("chunkSize"), run.numbers("chunkOffset"), run.offsets, ends, run.chunk_digests(),
        run.column("chunkType"), strict=True,
    ))  # fmt: skip
    stops, of_files = _stops(run), run.digests()
    all_found = list(zip(*chunks, strict=True))
    odd = []
    for file in cut:
        first, behind = numbers[file], numbers[file + 1]
        size, at_byte, left = sizes[file], 0, behind - first
        found = []
        for length, offset, at, end, digest, hole in columns[first:behind]:
            left -= 1
            stop = end
            if not left:
                length, stop = length or size - at_byte, stops[first] or end
                digest = digest or (None if at_byte else of_files[first])
            if offset != at_byte or not 0 < length <= size - at_byte:
                break
            if not hole:
                if not 0 < at < stop <= end or length > MAX_MEMBER or digest is None:
                    break
                found.append((file, at_byte, length, at, min(stop - at, 2 * length + LEAST_RANGE), digest))
            at_byte += length
        if left or at_byte != size or not size:
            odd.append(file)
        else:
            all_found += found
    all_found.sort()
    return _Chunks(*zip(*all_found, strict=True)) if all_found else chunks, odd
