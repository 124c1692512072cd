"""`…/layers/`: the layers of an image, base first.

    library/debian/12/layers/
    ├── 000/
    │   ├── digest  diff_id  media_type  size  created_by        one line each; no created_by where no step is named
    │   ├── real-size  files                                     bytes and number of its files; a read fetches it
    │   ├── blob -> ../../blobs/sha256:…                          the layer as it is stored
    │   └── tree/                                                 its files alone, whiteouts as they are stored
    └── 001/

Numbers are listed with leading zeros, so that `layers/*` is in the order of the layers; the plain number (`0`, `12`)
opens too. _PARTS has one row for each part of a layer. Used by image.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.images.image import ImageLayer
from regfs.images.pinned_images import PinnedImage
from regfs.images.reports.layer_totals import layer_totals
from regfs.model.attributes import Attributes
from regfs.rootfs.layer_tree import LayerTotals
from regfs.tree.directory_parts import DirectoryOfImage, Part, listed
from regfs.tree.node import (
    DIRECTORY_MODE,
    FILE_MODE,
    FOREVER,
    LINK_MODE,
    TABLE_MODE,
    Child,
    Dated,
    Found,
    Link,
    Node,
    TableDirectory,
    children_of,
    directory_attributes,
    text_file,
)
from regfs.tree.views.computed import ComputedFile

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class LayersDirectory(DirectoryOfImage):
    """The directory of an image's layers."""

    def lookup(self, name: str) -> Found:
        """Return the layer with that number, written with or without leading zeros."""
        layers = self.pinned.image.layers
        for layer in layers:
            if name in (str(layer.number), listed_name(layer, len(layers))):
                return Found(LayerDirectory(f"{self.key}/{name}", self.pinned, layer), FOREVER)
        raise NotFound(f"{self.pinned.image} has {len(layers)} layers, and none is called {name[:300]!r}")

    def children(self) -> list[Child]:
        """Return the layers' numbers, with leading zeros."""
        layers = self.pinned.image.layers
        names = [listed_name(layer, len(layers)) for layer in layers]
        return children_of(self.key, dict.fromkeys(names, DIRECTORY_MODE))


@dataclass(frozen=True, slots=True)
class LayerDirectory(Dated):
    """The directory of one layer."""

    key: str
    pinned: PinnedImage
    layer: ImageLayer

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes(self.layer.created_ns)

    def lookup(self, name: str) -> Found:
        """Return one of the parts; no network."""
        part = _BY_NAME.get(name)
        if part is None:
            raise NotFound(f"a layer has no {name[:300]!r}; it has {', '.join(_BY_NAME)}")
        return Found(part.make(self, f"{self.key}/{name}"), FOREVER)

    def children(self) -> list[Child]:
        """Return the parts that a look-up finds."""
        return listed(_PARTS, self, self.key, self.layer)

    def date(self) -> int:
        """Return when the layer was made, in nanoseconds since 1970; 0 where that is unknown."""
        return self.layer.created_ns


def _totals(line: Callable[[LayerTotals], int]) -> Callable[[LayerDirectory, str], Node]:
    """Return a function that makes a file of one line, *line* of a layer's totals. Reading it fetches the layer."""

    def make(directory: LayerDirectory, key: str) -> Node:
        pinned, layer = directory.pinned, directory.layer
        return ComputedFile(key, lambda: f"{line(layer_totals(pinned.image, layer))}\n", directory.date)

    return make


def _text(line: Callable[[ImageLayer], str]) -> Callable[[LayerDirectory, str], Node]:
    """Return a function that makes a file of one line, *line* of a layer."""
    return lambda directory, key: text_file(key, line(directory.layer), directory.date)


def _created_by(directory: LayerDirectory, key: str) -> Node:
    if not directory.layer.created_by:
        raise NotFound(f"the config names no step that made layer {directory.layer.number}")
    return text_file(key, directory.layer.created_by, directory.date)


def _blob(directory: LayerDirectory, key: str) -> Node:
    return Link(key, f"../../blobs/{directory.layer.descriptor.digest}".encode(), directory.date)


def _tree(directory: LayerDirectory, key: str) -> Node:
    pinned, layer = directory.pinned, directory.layer
    return TableDirectory(key, str(layer.diff_id), lambda: pinned.image.layer_tree(layer))


_PARTS: tuple[Part[LayerDirectory, ImageLayer], ...] = (
    Part("digest", FILE_MODE, lambda _: True, _text(lambda layer: str(layer.descriptor.digest))),
    Part("diff_id", FILE_MODE, lambda _: True, _text(lambda layer: str(layer.diff_id))),
    Part("media_type", FILE_MODE, lambda _: True, _text(lambda layer: layer.descriptor.media_type)),
    Part("size", FILE_MODE, lambda _: True, _text(lambda layer: str(layer.descriptor.size))),
    Part("real-size", FILE_MODE, lambda _: True, _totals(lambda totals: totals.size)),
    Part("files", FILE_MODE, lambda _: True, _totals(lambda totals: totals.files)),
    Part("created_by", FILE_MODE, lambda layer: bool(layer.created_by), _created_by),
    Part("blob", LINK_MODE, lambda _: True, _blob),
    Part("tree", TABLE_MODE, lambda _: True, _tree),
)
_BY_NAME = {part.name: part for part in _PARTS}


def listed_name(layer: ImageLayer, count: int) -> str:
    """Return the name in `layers/` of *layer*, one of *count*: its number, with at least three digits."""
    return f"{layer.number:0{max(_DIGITS, len(str(count - 1)))}d}"
