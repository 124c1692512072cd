"""Counts the files of a layer and their bytes: uncompressed, without tar headers and padding.

The totals are known once the layer's index is in the cache. Used by the tree and history.py. Thread rule: functions;
any thread.
"""

from __future__ import annotations

from regfs.errors import RegfsError
from regfs.images.image import Image, ImageLayer
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.rootfs.layer_tree import LayerTotals, LayerTree


def layer_totals(image: Image, layer: ImageLayer) -> LayerTotals:
    """Return the totals of *layer*; waits for its ingest, and raises its errors."""
    known = image.totals.get(layer.number)
    if known is None:
        tree = image.layer_tree(layer)
        assert isinstance(tree, LayerTree)
        known = image.totals[layer.number] = tree.totals()
    return known


def totals_if_here(image: Image, layer: ImageLayer) -> LayerTotals | None:
    """Return the totals of *layer* without a request; None if its index is not in the cache or cannot be read."""
    try:
        with under(NON_BLOCKING):
            return layer_totals(image, layer)
    except RegfsError:
        return None
