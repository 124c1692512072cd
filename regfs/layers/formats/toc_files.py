"""Adds plain files of a table of contents, which nearly all are, from its JSON to rows and chunks in one step.

Such a file has bytes in one chunk, alone in its member, no extended attributes, and a new name of plain characters in a
directory that is known. Any other entry is left to toc.py, which reads these too and comes to the same rows and chunks;
tests hold one against the other. Used by toc_ingest.py; one thread.
"""

from __future__ import annotations

import re
import stat
from typing import Protocol

from regfs.errors import BadLayer
from regfs.layers.formats.format import MAX_MEMBER, Fields
from regfs.layers.formats.toc import LEAST_RANGE, modified_ns
from regfs.layers.rows.archive_rows import FILE, ArchiveRows
from regfs.layers.tar.tar_reader import owner_of
from regfs.model.attributes import Attributes, with_size
from regfs.model.names import NAME_MAX

_SHA256 = re.compile("sha256:[0-9a-f]{64}", re.ASCII)
_MORE = frozenset(("xattrs", "chunkSize", "chunkOffset", "chunkType", "innerOffset"))
_MOST_MODE = (1 << 32) - 1
_MOST_REMEMBERED = 1 << 14


class FileSink(Protocol):
    """Takes files of one chunk."""

    @property
    def size(self) -> int:
        """Where the next file begins in the data file."""

    def add_file(self, size: int, *, at: int, stored: int, digest: str) -> None:
        """Add the next file: *size* bytes of *digest*, alone in the member at *at* of the blob."""


class TocFiles:
    """Adds plain files to *tree*, and their bytes to *sink*. Files of the names *hidden* do not count as plain."""

    def __init__(self, tree: ArchiveRows, sink: FileSink, *, hidden: frozenset[bytes] = frozenset()) -> None:
        self._tree = tree
        self._sink = sink
        self._hidden = hidden
        # By mode, owner, group and time: few of these make up an image.
        self._attributes: dict[tuple[int, int, int, str], bytes] = {}

    def take(self, fields: Fields, end: int) -> bool:
        """Add the entry *fields*, whose member ends at *end*; add nothing and return False if it is no plain file."""
        get = fields.get
        size, at, name, stop = get("size"), get("offset", 0), get("name"), get("endOffset", end)
        digest = get("chunkDigest") or get("digest")
        mode, uid, gid, time = get("mode", 0), get("uid", 0), get("gid", 0), get("modtime", "")
        if (
            get("type") != "reg" or not fields.keys().isdisjoint(_MORE)
            or type(size) is not int or type(at) is not int or type(stop) is not int or type(name) is not str
            or type(mode) is not int or type(uid) is not int or type(gid) is not int or type(time) is not str
            or type(digest) is not str or not _SHA256.fullmatch(digest)
            or not 0 < size <= MAX_MEMBER or not 0 <= at < stop <= end
        ):  # fmt: skip
            return False
        path = name.encode() if name.isascii() else b""
        if not 0 < len(path) <= NAME_MAX or 0 in path or (self._hidden and path.rpartition(b"/")[2] in self._hidden):
            return False
        attributes = self._attributes.get((mode, uid, gid, time)) or self._new_attributes(mode, uid, gid, time)
        sink = self._sink
        if not attributes or not self._tree.add_new(path, FILE, with_size(attributes, size), content=sink.size):
            return False
        sink.add_file(size, at=at, stored=min(stop - at, 2 * size + LEAST_RANGE), digest=digest)
        return True

    def _new_attributes(self, mode: int, uid: int, gid: int, time: str) -> bytes:
        """Return the attributes of files of that mode, owner, group and time; b"" where one of them is odd."""
        if not 0 <= mode <= _MOST_MODE:
            return b""
        if len(self._attributes) >= _MOST_REMEMBERED:
            self._attributes.clear()
        try:
            found = Attributes(stat.S_IFREG | mode & 0o7777, 0, 1, owner_of(uid), owner_of(gid), 0, modified_ns(time))
        except BadLayer:
            return b""
        packed = self._attributes[mode, uid, gid, time] = found.pack()
        return packed
