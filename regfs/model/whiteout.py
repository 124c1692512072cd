"""Recognises whiteouts: the names in a layer that are markers, and the names that they hide.

Only the last component of an entry's path makes it a marker: a directory `.wh.etc` on the way to another entry is a
directory like any other, for containerd and umoci too. A marker never becomes a file, so its name may be longer than
Linux allows if the hidden name is not. Source: image-spec, layer.md, "Whiteouts". Used by layers/ and rootfs/. Pure;
any thread.
"""

from __future__ import annotations

from regfs.errors import BadLayer
from regfs.model.layer_entry import EntryFlag
from regfs.model.names import NAME_MAX

PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
"""The prefix of AUFS's own files in the root of a layer, and of the opaque marker."""
_NO_NAMES = frozenset({b"", b".", b".."})


def marker_of(name: bytes) -> bytes:
    """Return the name of the marker that hides *name*."""
    return PREFIX + name


def hidden_name(marker: bytes) -> bytes:
    """Return the name that the whiteout *marker* (`.wh.name`) hides.

    Raises BadLayer for `.wh.`, `.wh..` and `.wh...`, for which a careless unpacker would remove the directory or its
    parent.
    """
    name = marker.removeprefix(PREFIX)
    if name in _NO_NAMES:
        raise BadLayer(f"the whiteout {marker.decode(errors='replace')!r} hides no name")
    return name


def mark_of(name: bytes, *, in_root: bool) -> int:
    """Return the flag of a marker's name, 0 for other names. Raises BadLayer for whiteouts that hide no name.

    AUFS's own names count in the root only. In other directories they are whiteouts, as for containerd and umoci.
    """
    if not name.startswith(PREFIX):
        return 0
    if name == OPAQUE_MARKER:
        return EntryFlag.OPAQUE_MARKER
    if in_root and name.startswith(AUFS_PREFIX):
        return EntryFlag.AUFS
    hidden_name(name)
    return EntryFlag.WHITEOUT


def is_too_long(name: bytes) -> bool:
    """Tell whether *name*, the last component of a path, is too long for a file (for a marker: its hidden name)."""
    return len(name) > NAME_MAX and len(name.removeprefix(PREFIX)) > NAME_MAX
