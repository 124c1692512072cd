"""Which format with a table of contents a layer has, if any.

By media type and annotations alone, the first format that recognises the layer: stargz writes zstd:chunked layers
with the annotation of eStargz beside those of zstd:chunked. A layer whose manifest authenticates no table is of none
of these formats, whatever its bytes look like: its table could say anything. Pure; any thread.
"""

from __future__ import annotations

from regfs.layers.formats.estargz import Estargz
from regfs.layers.formats.format import Format
from regfs.layers.formats.zstd_chunked import ZstdChunked
from regfs.model.manifest import Descriptor

FORMATS: tuple[Format, ...] = (ZstdChunked(), Estargz())


def recognise(descriptor: Descriptor) -> Format | None:
    """Return the format of the layer, None where it has to be read whole."""
    return next((each for each in FORMATS if each.recognises(descriptor)), None)
