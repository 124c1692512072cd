"""Encodes extended attributes for EROFS: behind their inode, or once in an area that inodes share.

Images with a security label on each file have few different labels: these are shared. Used by names.py. One thread.
"""

from __future__ import annotations

import struct

from regfs.errors import Unsupported
from regfs.export.erofs import layout
from regfs.model.layer_entry import unpack_xattrs

_ID = struct.Struct("<I")
_MOST_SHARED = 255


class Xattrs:
    """All sets of xattrs of an image. Call `add` for each occurrence, then `finish`, then read `bodies`."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._sets: list[tuple[bytes, ...]] = [()]
        self._counts: dict[bytes, int] = {}
        self._uses = [0]
        self.bodies: list[bytes] = []
        """What follows an inode with the set of each number; finish() makes them."""

    def add(self, packed: bytes) -> int:
        """Return the number of the set *packed*, as a layer's index has it; 0 is the empty set.

        Raises Unsupported for an xattr that EROFS cannot hold.
        """
        number = self._numbers.get(packed)
        if number is None:
            number = self._numbers[packed] = len(self._sets)
            entries = tuple(_entry(name, value) for name, value in sorted(unpack_xattrs(packed).items()))
            self._sets.append(entries)
            self._uses.append(0)
        self._uses[number] += 1
        return number

    def finish(self) -> bytes:
        """Return the area of shared xattrs. Raises Unsupported where a file has more xattrs than EROFS can hold."""
        for entries, uses in zip(self._sets, self._uses, strict=True):
            for entry in entries:
                self._counts[entry] = self._counts.get(entry, 0) + uses
        ids: dict[bytes, int] = {}
        area = bytearray()
        for entry, count in self._counts.items():
            if len(entry) * (count - 1) > _ID.size * count:
                ids[entry] = len(area) // 4
                area += entry
        self.bodies = [_body(entries, ids) for entries in self._sets]
        return bytes(area)


def count(body_size: int) -> int:
    """Return i_xattr_icount for a body of that size."""
    return (body_size - layout.XATTR_HEADER.size) // 4 + 1 if body_size else 0


def _entry(name: bytes, value: bytes) -> bytes:
    for prefix, number in layout.XATTR_PREFIXES:
        if name.startswith(prefix):
            rest = name[len(prefix) :]
            if len(rest) > layout.XATTR_NAME_MAX or len(value) > layout.XATTR_VALUE_MAX:
                raise Unsupported(f"the xattr {_shown(name)} has {len(value)} bytes: more than EROFS can hold")
            entry = layout.XATTR_ENTRY.pack(len(rest), number, len(value)) + rest + value
            return entry + bytes(-len(entry) % 4)
    raise Unsupported(f"the xattr {_shown(name)} is of a namespace that EROFS does not have")


def _body(entries: tuple[bytes, ...], ids: dict[bytes, int]) -> bytes:
    if not entries:
        return b""
    shared = [entry for entry in entries if entry in ids][:_MOST_SHARED]
    own = [entry for entry in entries if entry not in ids] + [entry for entry in entries if entry in ids][_MOST_SHARED:]
    parts = [layout.XATTR_HEADER.pack(0, len(shared)), *(_ID.pack(ids[entry]) for entry in shared), *own]
    body = b"".join(parts)
    if len(body) > layout.XATTRS_MAX:
        raise Unsupported(f"a file has {len(body)} bytes of xattrs, more than the {layout.XATTRS_MAX} of EROFS")
    return body


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
