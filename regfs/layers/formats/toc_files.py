"""Adds plain files of a table of contents, which nearly all are, from its JSON to rows and chunks in one step.

Such a file has bytes in one chunk, alone in its member, no extended attributes, and a new name of plain characters in a
directory that is known. Any other entry is left to toc.py, which reads these too and comes to the same rows and chunks;
tests hold one against the other. Used by toc_ingest.py; one thread.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from operator import itemgetter
from typing import Protocol

from regfs.errors import BadLayer
from regfs.layers.formats.format import MAX_MEMBER, Fields
from regfs.layers.formats.toc import LEAST_RANGE, modified_ns
from regfs.layers.rows.table_rows import TableRows
from regfs.layers.tar.tar_reader import owner_of
from regfs.model.attributes import Attributes, with_size
from regfs.model.names import NAME_MAX

_SHA256 = re.compile("sha256:[0-9a-f]{64}", re.ASCII)
_MORE = frozenset(("xattrs", "chunkSize", "chunkOffset", "chunkType", "innerOffset"))
# The keys that a plain file is made of, and what a file has that lacks one of them.
_ABSENT = {"size": 0, "offset": 0, "name": "", "mode": 0, "uid": 0, "gid": 0, "modtime": "", "digest": ""}
_DEFAULTS = tuple(_ABSENT.values())
_MOST_MODE = (1 << 32) - 1
_MOST_REMEMBERED = 1 << 14
_MOST_SHAPES = 64

Picked = tuple[object, ...]


class FileSink(Protocol):
    """Takes files of one chunk."""

    @property
    def size(self) -> int:
        """Where the next file begins in the data file."""

    def add_file(self, size: int, *, at: int, stored: int, digest: str) -> None:
        """Add the next file: *size* bytes of *digest*, alone in the member at *at* of the blob."""


class TocFiles:
    """Adds plain files to *tree*, and their bytes to *sink*. Files of the names *hidden* do not count as plain."""

    def __init__(self, tree: TableRows, sink: FileSink, *, hidden: frozenset[bytes] = frozenset()) -> None:
        self._tree = tree
        self._sink = sink
        self._hidden_ends = tuple(b"/" + name for name in hidden)
        self._hidden = hidden
        # By mode, owner, group and time: few of these make up an image.
        self._attributes: dict[tuple[int, int, int, str], bytes] = {}
        # By the keys of an entry, in their order: what takes the values of a plain file, in the order of _ABSENT, out
        # of its values and _DEFAULTS. A table's entries have a handful of such shapes.
        self._shapes: dict[tuple[str, ...], Callable[[Picked], Picked]] = {}

    def take(self, fields: Fields, end: int) -> bool:
        """Add the entry *fields*, whose member ends at *end*; add nothing and return False if it is no plain file."""
        if fields.get("type") != "reg":
            return False
        shape = tuple(fields)
        pick = self._shapes.get(shape) or self._new_shape(shape)
        size, at, name, mode, uid, gid, time, digest = pick((*fields.values(), *_DEFAULTS))
        stop = fields.get("endOffset", end)
        if (
            type(size) is not int or type(at) is not int or type(stop) is not int or type(name) is not str
            or type(mode) is not int or type(uid) is not int or type(gid) is not int or type(time) is not str
            or type(digest) is not str or not _SHA256.fullmatch(digest)
            or not 0 < size <= MAX_MEMBER or not 0 <= at < stop <= end
        ):  # fmt: skip
            return False
        path = name.encode() if name.isascii() else b""
        if not 0 < len(path) <= NAME_MAX or 0 in path or path.endswith(self._hidden_ends) or path in self._hidden:
            return False
        attributes = self._attributes.get((mode, uid, gid, time)) or self._new_attributes(mode, uid, gid, time)
        sink = self._sink
        if not attributes or not self._tree.add_new_file(path, with_size(attributes, size), sink.size):
            return False
        sink.add_file(size, at=at, stored=min(stop - at, 2 * size + LEAST_RANGE), digest=digest)
        return True

    def _new_shape(self, shape: tuple[str, ...]) -> Callable[[Picked], Picked]:
        """Return what takes the values of a plain file out of an entry that has the keys *shape*.

        Where an entry of that shape cannot be plain, these values are not those of a plain file.
        """
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        places = {key: len(shape) + place for place, key in enumerate(_ABSENT)}
        if _MORE.isdisjoint(shape):
            places |= {key: place for place, key in enumerate(shape) if key in places}
            places["digest"] = shape.index("chunkDigest") if "chunkDigest" in shape else places["digest"]
        pick = self._shapes[shape] = itemgetter(*places.values())
        return pick

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
