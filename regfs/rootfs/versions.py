"""Finds what each layer of an image has at one path: what is shown, and what upper layers replaced or deleted.

Used by verbs/which.py. Thread rule: functions; any thread. They may raise CacheFailure.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.model.attributes import is_directory
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.wasted import hidden_by
from regfs.store.layers.layer_index import ROOT_ROW, LayerIndex


class Version(NamedTuple):
    """What layer number *layer* has at the path: the 80 bytes of its attributes.

    *hidden_by* is the upper layer that hides it, None if it is shown; *is_deleted*: that layer deletes it.
    """

    layer: int
    attributes: bytes
    hidden_by: int | None
    is_deleted: bool


def versions(rootfs: Rootfs, path: bytes) -> list[Version]:
    """Return what the layers have at *path*, the uppermost first. A directory in several layers is shown in each."""
    found = []
    for number, index in reversed(list(enumerate(rootfs.layers))):
        attributes = _attributes(index, path)
        if attributes is None:
            continue
        hidden = hidden_by(rootfs, number, path)
        if hidden is not None and is_directory(attributes) and not hidden[1] and _is_directory(rootfs, hidden[0], path):
            hidden = None
        found.append(Version(number, attributes, hidden[0] if hidden else None, bool(hidden and hidden[1])))
    return found


def _attributes(index: LayerIndex, path: bytes) -> bytes | None:
    row = ROOT_ROW
    attributes = index.row(row).attributes
    for name in path.split(b"/"):
        entry = index.lookup(row, name)
        if entry is None:
            return None
        row, attributes = entry.row, entry.attributes
    return attributes


def _is_directory(rootfs: Rootfs, layer: int, path: bytes) -> bool:
    attributes = _attributes(rootfs.layers[layer], path)
    return attributes is not None and is_directory(attributes)
