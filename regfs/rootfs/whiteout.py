"""Whiteouts: what a marker in a layer hides.

Source: image-spec, layer.md, "Whiteouts". Used by the merge. Pure; any thread.
"""

from __future__ import annotations

from regfs.errors import BadLayer

PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
_NO_NAMES = frozenset({b"", b".", b".."})


def marker_of(name: bytes) -> bytes:
    """Return the name of the marker that hides *name*."""
    return PREFIX + name


def hidden_name(marker: bytes) -> bytes:
    """Return the name that the whiteout *marker* (`.wh.name`) hides.

    Raises BadLayer for `.wh.`, `.wh..` and `.wh...`, with which a careless unpacker removes the directory around it.
    """
    name = marker.removeprefix(PREFIX)
    if name in _NO_NAMES:
        raise BadLayer(f"the whiteout {marker.decode(errors='replace')!r} hides no name")
    return name
