"""Finds the layer that made two merged trees differ at a path: it added, changed, replaced or deleted the path.

If both trees have the layer that a path is from, an upper layer of the other tree hid or deleted it. Used by
images/comparing/. Thread rule: an Origins belongs to one thread.
"""

from __future__ import annotations

from typing import NamedTuple

from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT
from regfs.rootfs.differences import Difference, shared_layers
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.versions import versions
from regfs.rootfs.wasted import hidden_by


class Origin(NamedTuple):
    """A layer of the tree b or a, by its number; None for a directory that no layer describes."""

    is_of_b: bool
    layer: int | None


class Origins:
    """Finds the origin of each difference from *a* to *b*, which must come in the order of the walk."""

    def __init__(self, a: Rootfs, b: Rootfs) -> None:
        self._a, self._b = a, b
        self._shared = shared_layers(a, b)
        # What is below a removed directory has the directory's origin.
        self._hidden: tuple[str, bytes, Origin] | None = None

    def of(self, found: Difference) -> Origin:
        """Return the layer that made the difference. May raise CacheFailure."""
        node_a = found.a[1] if found.a is not None else None
        node_b = found.b[1] if found.b is not None else None
        if node_a is not None and node_b is not None:
            layer_a, layer_b = node_a >> LAYER_SHIFT, node_b >> LAYER_SHIFT
            if layer_b < self._shared <= layer_a:
                return _origin(layer_a, is_of_b=False)
            return _origin(layer_b, is_of_b=True)
        node = node_b if node_a is None else node_a
        assert node is not None
        return self._of_one_side(found, node >> LAYER_SHIFT, is_of_b=node_a is None)

    def _of_one_side(self, found: Difference, layer: int, *, is_of_b: bool) -> Origin:
        """Return the layer that added a path of one side; if both sides have that layer, the one that hid it."""
        if layer >= self._shared:
            return _origin(layer, is_of_b=is_of_b)
        if self._hidden is not None:
            kind, directory, origin = self._hidden
            if kind == found.kind and found.path.startswith(directory):
                return origin
        hidden = hidden_by(self._a if is_of_b else self._b, layer, found.path)
        if hidden is None:  # an upper layer links to a file of a shared one
            shown = versions(self._b if is_of_b else self._a, found.path)
            return _origin(shown[0].layer if shown else layer, is_of_b=is_of_b)
        origin = Origin(not is_of_b, hidden[0])
        self._hidden = (found.kind, found.path + b"/", origin)
        return origin


def _origin(layer: int, *, is_of_b: bool) -> Origin:
    return Origin(is_of_b, None if layer == INVENTED_LAYER else layer)
