"""Whiteouts: which names in a layer are markers, and which names they hide.

Only the last component of an entry's path makes it a marker: a directory `.wh.etc` on the way to another entry is a
directory like any other, for containerd and umoci too. No file is ever made of a marker, so that its name may be longer
than Linux allows, as long as the hidden one is not.
Source: image-spec, layer.md, "Whiteouts". Used by layers/ and rootfs/. Pure; any thread.
"""

from __future__ import annotations

from regfs.errors import BadLayer
from regfs.model.layer_entry import EntryFlag
from regfs.model.names import NAME_MAX

PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
"""Book-keeping of AUFS in the root of a layer; the opaque marker begins so too."""
_NO_NAMES = frozenset({b"", b".", b".."})


def marker_of(name: bytes) -> bytes:
    """Return the name of the marker that hides *name*."""
    return PREFIX + name


def hidden_name(marker: bytes) -> bytes:
    """Return the name that the whiteout *marker* (`.wh.name`) hides.

    Raises BadLayer for `.wh.`, `.wh..` and `.wh...`: a careless unpacker removes the directory or its parent for them.
    """
    name = marker.removeprefix(PREFIX)
    if name in _NO_NAMES:
        raise BadLayer(f"the whiteout {marker.decode(errors='replace')!r} hides no name")
    return name


def mark_of(name: bytes, *, in_root: bool) -> int:
    """Return the flag of a marker's name, 0 for any other. Raises BadLayer for whiteouts of no name.

    AUFS keeps its own in the root alone; elsewhere such a name is a whiteout, for containerd and umoci too.
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
    """Tell whether *name*, the last component of a path, is too long for a file, and for a file that it hides."""
    return len(name) > NAME_MAX and len(name.removeprefix(PREFIX)) > NAME_MAX
