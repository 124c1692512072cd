"""Extended attributes that can be read by name but are not listed, so that copies of a file do not get them.

    user.regfs.layer        002: the name in `layers/` of the layer that the file is from
    user.regfs.digest       sha256:…, the digest of that layer's blob
    user.regfs.created_by   the command that made the layer

Used by image.py and table_slots.py. Thread rule: values; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from regfs.images.image import Image
from regfs.tree.layers import listed_name

PREFIX = b"user.regfs."
_LONGEST = 1 << 16  # the longest value that the kernel takes


class XattrsWithUnlisted(Mapping[bytes, bytes]):
    """A mapping of attributes: `iter()` yields the listed ones, a look-up finds the *unlisted* ones too."""

    def __init__(self, listed: Mapping[bytes, bytes], unlisted: Callable[[], Mapping[bytes, bytes]]) -> None:
        self._listed = listed
        self._unlisted = unlisted

    def __getitem__(self, name: bytes) -> bytes:
        value = self._listed.get(name)
        if value is None and name.startswith(PREFIX):
            value = self._unlisted().get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def origin_of(image: Image, number: int) -> Mapping[bytes, bytes]:
    """Return the attributes of layer *number* of *image*; empty for a directory that no layer has."""
    layers = image.layers
    if number >= len(layers):
        return {}
    layer = layers[number]
    origin = {
        b"user.regfs.layer": listed_name(layer, len(layers)).encode(),
        b"user.regfs.digest": str(layer.descriptor.digest).encode(),
    }
    if layer.created_by:
        origin[b"user.regfs.created_by"] = layer.created_by.encode("utf-8", "replace")[:_LONGEST]
    return origin
