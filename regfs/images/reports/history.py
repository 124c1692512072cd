"""`history` of an image as text: the steps of its build, and the layer of each.

    STEP  LAYER   COMPRESSED    REAL SIZE  COMMAND
       1  000       49572313    125829120  ADD file:… in /
       2  empty            -            -  CMD ["bash"]

The real size is known once the layer is indexed. Used by tree/image.py. Thread rule: a function.
"""

from __future__ import annotations

from collections.abc import Iterator

from regfs.images.image import Image, ImageLayer
from regfs.images.reports.layer_totals import totals_if_here
from regfs.model.image_config import History
from regfs.model.path_text import escaped

_LINE = "{:>4}  {:<5}  {:>12}  {:>12}  {}\n"


def history_text(image: Image) -> str:
    """Return the steps of the config's history, one a line; layers without a step come at the end.

    Blocks on the network for manifest and config, and raises its errors.
    """
    return _LINE.format("STEP", "LAYER", "COMPRESSED", "REAL SIZE", "COMMAND") + "".join(_lines(image))


def _lines(image: Image) -> Iterator[str]:
    config, layers = image.config, list(image.layers)
    if len(config.layer_steps()) != len(layers):  # a hand-made config: better no layer than the wrong one
        for step, history in enumerate(config.history, 1):
            yield _LINE.format(step, "empty" if history.empty_layer else "?", "-", "-", _command(history))
        yield from (_layer_line(image, layer, "-", "") for layer in layers)
        return
    for step, history in enumerate(config.history, 1):
        if history.empty_layer:
            yield _LINE.format(step, "empty", "-", "-", _command(history))
        else:
            yield _layer_line(image, layers.pop(0), step, _command(history))


def _layer_line(image: Image, layer: ImageLayer, step: int | str, command: str) -> str:
    totals = totals_if_here(image, layer)
    real_size = "-" if totals is None else totals.size
    return _LINE.format(step, f"{layer.number:03d}", layer.descriptor.size, real_size, command)


def _command(history: History) -> str:
    return escaped(" ".join(history.created_by.split()))
