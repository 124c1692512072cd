"""Recognises the format of a layer's table of contents, if it has one.

By media type and annotations alone, the first format that recognises the layer: stargz writes zstd:chunked layers with
the annotation of eStargz beside those of zstd:chunked. A layer whose manifest authenticates no table has none of these
formats, whatever its bytes are: its table could be forged. Pure; any thread.
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
