"""`…/layers/`: what the image is made of, base first.

    library/debian/12/layers/
    └── 0/
        ├── digest  diff_id  media_type  size  created_by        one line each
        ├── blob -> ../../blobs/sha256:…                          the layer as it is stored
        └── tree/                                                 its files alone, whiteouts as they are stored

Any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from regfs.errors import NotFound
from regfs.images.image import Image, ImageLayer
from regfs.model.attributes import Attributes
from regfs.tree.node import (
    DIRECTORY_MODE,
    FILE_MODE,
    FOREVER,
    LINK_MODE,
    Child,
    Found,
    Link,
    RowsDirectory,
    directory_attributes,
    text_file,
)


@dataclass(frozen=True, slots=True)
class LayersDirectory:
    """The directory of an image's layers."""

    key: str
    image: Image

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return the layer of that number."""
        for layer in self.image.layers:
            if str(layer.number) == name:
                return Found(LayerDirectory(f"{self.key}/{name}", self.image, layer), FOREVER)
        raise NotFound(f"{self.image} has {len(self.image.layers)} layers, and none is called {name[:300]!r}")

    def children(self) -> list[Child]:
        """Return the layers' numbers."""
        return [Child(str(layer.number), DIRECTORY_MODE) for layer in self.image.layers]


@dataclass(frozen=True, slots=True)
class LayerDirectory:
    """The directory of one layer."""

    key: str
    image: Image
    layer: ImageLayer

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return one of the facts of the layer, its blob or its tree."""
        key = f"{self.key}/{name}"
        if name == "tree":
            image, layer = self.image, self.layer
            return Found(RowsDirectory(key, str(layer.diff_id), lambda: image.layer_tree(layer)), FOREVER)
        if name == "blob":
            return Found(Link(key, f"../../blobs/{self.layer.descriptor.digest}".encode()), FOREVER)
        facts = self._facts()
        if name not in facts:
            raise NotFound(f"a layer has no {name[:300]!r}; it has {', '.join(facts)}, blob and tree")
        return Found(text_file(key, facts[name]), FOREVER)

    def children(self) -> list[Child]:
        """Return what lookup() knows."""
        facts = [Child(name, FILE_MODE) for name in self._facts()]
        return [*facts, Child("blob", LINK_MODE), Child("tree", DIRECTORY_MODE)]

    def _facts(self) -> dict[str, str]:
        descriptor = self.layer.descriptor
        return {
            "digest": str(descriptor.digest),
            "diff_id": str(self.layer.diff_id),
            "media_type": descriptor.media_type,
            "size": str(descriptor.size),
            "created_by": self.layer.created_by,
        }
