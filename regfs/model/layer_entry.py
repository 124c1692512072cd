"""One row of a layer's index: what ingest writes, the index stores and the merge reads.

A row is one name in one layer, after all members of the archive were applied in order (archive_rows.py), so readers of
rows need not know tar. Pure; any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntFlag
from typing import NamedTuple

_XATTR = struct.Struct("<HI")

ROOT_ROW = 0
NOWHERE = -1
"""The parent of a row whose name was replaced later in the archive, and which is still the inode of a hard link."""


class EntryFlag(IntFlag):
    """What the merge must know about a row beyond its attributes."""

    IMPLIED = 1
    """A directory that no tar entry describes: mode 0755, owned by root, dated 1970."""
    OPAQUE = 2
    """A directory that hides the entries that lower layers have in it."""
    WHITEOUT = 4
    """`.wh.name`, as it is stored: hides `name` of lower layers. If it is a directory, its own entries are shown."""
    OPAQUE_MARKER = 8
    """`.wh..wh..opq` as it is stored; its directory is OPAQUE."""
    AUFS = 16
    """Another `.wh..wh.*` in the root: book-keeping of AUFS. The merge leaves it out, with all below it."""
    LINK_BELOW = 32
    """A hard link to a path (in *target*) that this layer does not have; the merge looks for it in lower ones."""


class Row(NamedTuple):
    """One name of a layer.

    *inode* is this row or, for a hard link, the row that it links to; attributes, content, target and xattrs are always
    those of the inode. *attributes* are model/attributes.py's 80 bytes, with nlink as this layer alone has it.
    *content* is None (no bytes) or an offset in the layer's data file, a multiple of 512. *target* is a symbolic
    link's text, or the path below of a LINK_BELOW.
    """

    row: int
    parent: int
    name: bytes
    inode: int
    flags: int
    attributes: bytes
    content: int | None
    target: bytes | None
    xattrs: bytes | None


def pack_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes | None:
    """Return *xattrs* as an index keeps them: `<HI` (sizes of name and value), name, value, repeated; None if empty.

    Sorted by name: archive and table of contents of one layer may list them in different orders.
    """
    if not xattrs:
        return None
    return b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in sorted(xattrs.items()))


def unpack_xattrs(packed: bytes | None) -> dict[bytes, bytes]:
    """Return the attributes that pack_xattrs() packed."""
    xattrs: dict[bytes, bytes] = {}
    at = 0
    while packed and at < len(packed):
        name_size, value_size = _XATTR.unpack_from(packed, at)
        at += _XATTR.size
        name = packed[at : at + name_size]
        at += name_size
        xattrs[name] = packed[at : at + value_size]
        at += value_size
    return xattrs
