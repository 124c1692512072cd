"""The row of a layer's index for one tar entry, and for a directory that no entry describes.

Used by archive_rows.py and table_rows.py, which say what number, parent and name the row has. Pure.
"""

from __future__ import annotations

import stat

from regfs.layers.tar.tar_reader import TarEntry
from regfs.model.attributes import Attributes
from regfs.model.layer_entry import ROOT_ROW, EntryFlag, Row, pack_xattrs
from regfs.model.whiteout import AUFS_PREFIX, OPAQUE_MARKER

_DIRECTORY_SIZE = 4096
_IMPLIED = Attributes(stat.S_IFDIR | 0o755, size=_DIRECTORY_SIZE, nlink=2).pack()


def entry_row(
    row: int,
    parent: int,
    name: bytes,
    entry: TarEntry,
    *,
    flags: int = 0,
    content: int | None = None,
    target: bytes | None = None,
) -> Row:
    """Return row number *row* of *entry*, an inode of its own; *parent* is the number of its directory's row."""
    xattrs = pack_xattrs(entry.xattrs) if entry.xattrs else None
    return Row(row, parent, name, row, flags, packed_attributes(entry), content, target, xattrs)


def implied_row(row: int, parent: int, name: bytes, *, mark: int = 0) -> Row:
    """Return row number *row* of a directory that no entry describes; *mark* is that of the marker of this name."""
    flags = mark or EntryFlag.IMPLIED
    if not mark and parent == ROOT_ROW and name.startswith(AUFS_PREFIX) and name != OPAQUE_MARKER:
        flags |= EntryFlag.AUFS  # the only names that begin with `.wh.` which mean something to what is below them
    return Row(row, parent, name, row, flags, _IMPLIED, None, None, None)


def packed_attributes(entry: TarEntry) -> bytes:
    """Return the attributes of the row of *entry*."""
    kind, mode, size, nlink = entry.kind, entry.mode, entry.size, 1
    if kind == stat.S_IFDIR:
        size, nlink = _DIRECTORY_SIZE, 2
    elif kind == stat.S_IFLNK:
        size, mode = len(entry.link), 0o777  # Linux gives them no other
    return Attributes(kind | mode, size, nlink, entry.uid, entry.gid, entry.rdev, entry.mtime_ns).pack()
