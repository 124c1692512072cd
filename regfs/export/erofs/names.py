"""Reads the names of an image for its EROFS image: those of its rootfs/, and inodes from the layers' indexes.

The layers' indexes are read once, into 12 bytes for each row and the text of their links. Used by image.py. One thread.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from regfs.errors import CacheDamaged, Unsupported
from regfs.export.erofs import layout
from regfs.export.erofs.xattrs import Xattrs
from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT, ROW_MASK
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.layer_index import LayerIndex

_NOWHERE = -1
_IN_BLOCK = layout.BLOCK - 1
_SIZE = struct.Struct("<Q")


class Device(NamedTuple):
    """A layer's data file: its name without suffix, its size in bytes, the number of its first block."""

    name: str
    size: int
    block: int


class Entry(NamedTuple):
    """One name: *parent* and *node* are keys of model/node_id.py, *attributes* the 80 bytes of model/attributes.py.

    *block* is the first one of a regular file that has bytes. *target* is a symbolic link's text. *xattrs* is what
    follows the inode (xattrs.py).
    """

    parent: int
    name: bytes
    node: int
    attributes: bytes
    block: int = 0
    target: bytes = b""
    xattrs: bytes = b""


class Names:
    """The names of the image *rootfs*. Raises Unsupported for what EROFS cannot hold, CacheFailure."""

    def __init__(self, rootfs: Rootfs) -> None:
        self._rootfs = rootfs
        xattrs = Xattrs()
        self._layers: list[_Layer] = []
        block = layout.DEVICES_BLOCK
        for index in rootfs.layers:
            self._layers.append(_Layer(index, xattrs, block))
            block += layout.blocks(self._layers[-1].device.size)
        self.shared_xattrs = xattrs.finish()
        self._xattrs = xattrs
        self.devices = [layer.device for layer in self._layers]

    def root(self) -> Entry:
        """Return the root directory; its name is empty, and its parent is itself."""
        key = self._rootfs.root
        return Entry(key, b"", key, self._rootfs.attributes(key), xattrs=self._body(key))

    def entries(self) -> Iterator[Entry]:
        """Yield all names but the root, those of a directory together and sorted by their bytes."""
        layers, bodies = self._layers, self._xattrs.bodies
        # tuple.__new__: NamedTuple's own constructor takes twice as long, and there may be millions of entries.
        new, unpack_size = tuple.__new__, _SIZE.unpack_from
        for parent, name, node, attributes in self._rootfs.entries():
            number = node >> LAYER_SHIFT
            if number == INVENTED_LAYER:
                yield Entry(parent, name, node, attributes)
                continue
            layer, row = layers[number], node & ROW_MASK
            xattrs = bodies[layer.xattrs[row]]
            kind = attributes[53] >> 4
            if kind == layout.REGULAR and (size := unpack_size(attributes)[0]):
                offset = layer.places[row]
                if offset < 0 or offset & _IN_BLOCK or offset + size > layer.device.size:
                    raise layer.refusal(row, size)
                block = layer.device.block + (offset >> layout.BLOCK_BITS)
                yield new(Entry, (parent, name, node, attributes, block, b"", xattrs))
            else:
                target = layer.target(row) if kind == layout.LINK else b""
                yield new(Entry, (parent, name, node, attributes, 0, target, xattrs))

    def _body(self, node: int) -> bytes:
        number = node >> LAYER_SHIFT
        return b"" if number == INVENTED_LAYER else self._xattrs.bodies[self._layers[number].xattrs[node & ROW_MASK]]


class _Layer:
    """The parts of a layer's index that an image needs: offsets of files, targets of links, xattrs."""

    def __init__(self, index: LayerIndex, xattrs: Xattrs, block: int) -> None:
        self._path = index.path
        rows = index.last_row() + 1
        self.device = Device(index.path.stem, index.layout().size, block)
        if block + layout.blocks(self.device.size) > layout.NO_BLOCK:
            raise Unsupported("its layers have more than 1.9 TiB together; EROFS takes less than that")
        self.xattrs = array("I", bytes(4 * rows))
        self.places = array("q", [_NOWHERE]) * rows
        self._targets = bytearray()
        for row, content, target, packed in index.inodes():
            if content is not None:
                self.places[row] = content
            elif target is not None:
                self.places[row] = len(self._targets)
                self._targets += len(target).to_bytes(4, "little") + target
            if packed is not None:
                self.xattrs[row] = xattrs.add(packed)

    def refusal(self, row: int, size: int) -> CacheDamaged:
        """Return the error about a regular file of *size* bytes whose row has an impossible offset."""
        return CacheDamaged(
            f"{self._path}: row {row} has {size} bytes at byte {self.places[row]} of {self.device.size}"
        )

    def target(self, row: int) -> bytes:
        """Return the text of a symbolic link. Raises CacheDamaged where it has none."""
        at = self.places[row]
        if at < 0:
            raise CacheDamaged(f"{self._path}: row {row} is a symbolic link without a target")
        size = int.from_bytes(self._targets[at : at + 4], "little")
        return bytes(self._targets[at + 4 : at + 4 + size])
