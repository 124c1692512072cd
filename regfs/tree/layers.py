"""`…/layers/`: what the image is made of, base first.

    library/debian/12/layers/
    ├── 000/
    │   ├── digest  diff_id  media_type  size  created_by        one line each; no created_by where no step is named
    │   ├── blob -> ../../blobs/sha256:…                          the layer as it is stored
    │   └── tree/                                                 its files alone, whiteouts as they are stored
    └── 001/

Numbers are listed with leading zeros, so that `layers/*` is in the order of the layers; the number alone (`0`, `12`)
opens too. Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.images.image import ImageLayer, PinnedImage
from regfs.model.attributes import Attributes
from regfs.tree.node import (
    DIRECTORY_MODE,
    FILE_MODE,
    FOREVER,
    LINK_MODE,
    ROWS_MODE,
    Child,
    Dated,
    Found,
    Link,
    TableDirectory,
    children_of,
    directory_attributes,
    text_file,
)

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class LayersDirectory(Dated):
    """The directory of an image's layers."""

    key: str
    pinned: PinnedImage

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes(self.pinned.created_ns)

    def lookup(self, name: str) -> Found:
        """Return the layer of that number, written as it is listed or without leading zeros."""
        layers = self.pinned.image.layers
        for layer in layers:
            if name in (str(layer.number), _listed_name(layer, len(layers))):
                return Found(LayerDirectory(f"{self.key}/{name}", self.pinned, layer), FOREVER)
        raise NotFound(f"{self.pinned.image} has {len(layers)} layers, and none is called {name[:300]!r}")

    def children(self) -> list[Child]:
        """Return the layers' numbers, with leading zeros."""
        layers = self.pinned.image.layers
        names = [_listed_name(layer, len(layers)) for layer in layers]
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
        """Return one of the facts of the layer, its blob or its tree."""
        key = f"{self.key}/{name}"
        if name == "tree":
            return Found(self._tree(), FOREVER)
        if name == "blob":
            return Found(Link(key, f"../../blobs/{self.layer.descriptor.digest}".encode(), self._date), FOREVER)
        facts = self._facts()
        if name not in facts:
            raise NotFound(f"a layer has no {name[:300]!r}; it has {', '.join(facts)}, blob and tree")
        return Found(text_file(key, facts[name], self._date), FOREVER)

    def children(self) -> list[Child]:
        """Return what lookup() knows."""
        table = self._tree()
        tree = Child("tree", ROWS_MODE, table.key, table)
        return [*children_of(self.key, dict.fromkeys(self._facts(), FILE_MODE) | {"blob": LINK_MODE}), tree]

    def _tree(self) -> TableDirectory:
        pinned, layer = self.pinned, self.layer
        return TableDirectory(f"{self.key}/tree", str(layer.diff_id), lambda: pinned.image.layer_tree(layer))

    def _date(self) -> int:
        return self.layer.created_ns

    def _facts(self) -> dict[str, str]:
        descriptor = self.layer.descriptor
        facts = {
            "digest": str(descriptor.digest),
            "diff_id": str(self.layer.diff_id),
            "media_type": descriptor.media_type,
            "size": str(descriptor.size),
        }
        return facts | ({"created_by": self.layer.created_by} if self.layer.created_by else {})


def _listed_name(layer: ImageLayer, count: int) -> str:
    """Return the number of *layer*, one of *count*, with as many digits as the others: at least three."""
    return f"{layer.number:0{max(_DIGITS, len(str(count - 1)))}d}"
