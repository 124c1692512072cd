"""Adds the plain entries of a table of contents, which nearly all are, to rows and chunks, a run of them in one step.

toc_text.py says what is plain in the text. Here such an entry has a new name in a directory that is known, and the
bytes of a file are alone in their member. Any other entry is left to toc.py, which reads these too and comes to the
same rows and chunks; tests hold one against the other. Used by toc_ingest.py; one thread.
"""

from __future__ import annotations

import stat
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

_STATES: dict[str | None, int] = {"reg": FILE, "dir": DIRECTORY, "symlink": SYMLINK}
_TYPES: dict[str | None, tuple[int, int]] = {
    "reg": (stat.S_IFREG, 1),
    "dir": (stat.S_IFDIR, 2),
    "symlink": (stat.S_IFLNK, 1),
}
_DIRECTORY_SIZE = 4096
_LINK_MODE = 0o777
_LEAST_AT_ONCE, _MOST_AT_ONCE = 16, 4096
_MOST_REMEMBERED = 1 << 14

_Key = tuple[str | None, ...]
"""Kind, mode, owner, group and time, as they are written."""


class FileSink(Protocol):
    """Takes files of one chunk."""

    def places(self, sizes: Sequence[int]) -> list[int]:
        """Return where in the data file files of these *sizes* would begin."""

    def add_files(
        self, starts: Sequence[int], sizes: Sequence[int], ats: Sequence[int], stored: Sequence[int],
        digests: Sequence[str | None],
    ) -> None:  # fmt: skip
        """Add the next files, at *starts*: *sizes* bytes of *digests*, alone in the members at *ats* of the blob."""


class _Columns(NamedTuple):
    """What becomes of the entries of a run; *sizes* are of bytes in the blob. *odd* are left out."""

    paths: list[bytes]
    states: bytes
    attributes: list[bytes]
    sizes: list[int]
    targets: list[bytes]
    offsets: list[int]
    stored: list[int]
    digests: Sequence[str | None]
    odd: list[int]


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

    def take(self, bounded: BoundedRun) -> Iterator[int]:
        """Add the entries of a run; yield the number of each that is not plain after all. See Take."""
        columns = self._columns(bounded)
        at, count = 0, len(bounded.run)
        for odd in (*columns.odd, count):
            while at < odd:
                wanted = min(odd - at, self._step)
                taken = self._add(columns, at, at + wanted)
                at += taken
                if taken == wanted:
                    self._step = min(2 * self._step, _MOST_AT_ONCE)
                    continue
                self._step = _LEAST_AT_ONCE
                yield at
                at += 1
            if odd < count:
                yield at
                at += 1

    def _columns(self, bounded: BoundedRun) -> _Columns:
        run = bounded.run
        paths, kinds, targets = run.paths(), run.column("type"), [b""] * len(run)
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
        stored, unusual = _members(bounded, sizes)
        return _Columns(
            paths, bytes(map(_STATES.__getitem__, kinds)), with_sizes(rests, shown), sizes, targets, run.offsets,
            stored, run.digests, sorted(odd | unusual),
        )  # fmt: skip

    def _add(self, columns: _Columns, at: int, stop: int) -> int:
        """Add the entries from *at* to *stop*, up to one that the tree does not take; return how many."""
        sizes = columns.sizes[at:stop]
        starts = self._sink.places(sizes)
        taken = self._tree.add_new_entries(
            columns.paths[at:stop], columns.states[at:stop], columns.attributes[at:stop],
            [start if size else None for start, size in zip(starts, sizes, strict=True)],
            columns.targets[at:stop],
        )  # fmt: skip
        part, is_file = slice(at, at + taken), sizes[:taken]
        self._sink.add_files(
            list(compress(starts, is_file)), list(compress(sizes, is_file)),
            list(compress(columns.offsets[part], is_file)), list(compress(columns.stored[part], is_file)),
            list(compress(columns.digests[part], is_file)),
        )  # fmt: skip
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


def _members(bounded: BoundedRun, sizes: list[int]) -> tuple[list[int], set[int]]:
    """Return how many bytes of the blob to read for files of these *sizes*; and the numbers of those to be left."""
    run, ends = bounded
    stops = ends
    if any(written := run.column("endOffset")):
        stops = [int(stop) if stop else end for stop, end in zip(written, ends, strict=True)]
    stored, odd = [0] * len(run), set()
    columns = zip(range(len(run)), sizes, run.offsets, stops, ends, run.digests, strict=True)
    for number, size, at, stop, end, digest in columns:
        if size:
            if 0 < at < stop <= end and size <= MAX_MEMBER and digest:
                most, here = 2 * size + LEAST_RANGE, stop - at
                stored[number] = here if here < most else most
            else:
                odd.add(number)
    return stored, odd
