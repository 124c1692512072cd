"""Reads a gzip layer that has a zTOC: inflates its spans, and checks a file's tar header before the file is read.

Used by partial_layers.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from regfs.errors import BadLayer
from regfs.layers.formats.format import Chunk
from regfs.layers.formats.soci import check_headers, unpacked
from regfs.layers.formats.ztoc import WINDOW
from regfs.store.layers.content import Pieces

log = logging.getLogger(__name__)

_MAX_HEADERS = 8 << 20
"""The most bytes of headers before one file: two names, and extended headers of 1 MiB each."""


class SpanTable(Protocol):
    """The spans and tar headers of a layer, from its index."""

    def restart(self, blob_offset: int) -> tuple[int, bytes] | None:
        """Return the bits and the compressed window to begin inflating with at *blob_offset* of the blob."""

    def headers(self, start: int) -> tuple[int, bytes] | None:
        """Return the offset and the fingerprint of the tar headers of the file at *start* of the archive."""


def unpack_spans(table: SpanTable, chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
    """Return the inflated spans *chunks*, without wrong ones; *stored* is their bytes in the blob.

    The digest of a span is that of its compressed bytes.
    """
    found: dict[Chunk, bytes] = {}
    for chunk in chunks:
        restart = table.restart(chunk.at)
        if restart is None or chunk.digest is None:
            continue
        bits, window = restart
        with suppress(BadLayer):
            found[chunk] = unpacked(
                stored[: chunk.stored],
                digest=chunk.digest,
                bits=bits,
                window=zlib.decompressobj().decompress(window, WINDOW),
                size=chunk.size,
            )
    return found


class HeaderCheck:
    """Fetches the bytes of one open file, after comparing its tar header with the zTOC."""

    def __init__(
        self,
        start: int,
        table: SpanTable,
        read: Callable[[int, int], bytes],
        ensure: Callable[[int, int], Pieces],
        *,
        what: str,
        note: Callable[[str], None],
    ) -> None:
        """*start* is the file's offset in the archive; *read* returns a range of the archive, *ensure* fetches one.

        *note* is called with a sentence about a wrong header.
        """
        self._start = start
        self._table = table
        self._read = read
        self._ensure = ensure
        self._what = what
        self._note = note
        self._is_right = False

    def ensure(self, start: int, stop: int) -> Pieces:
        """Fetch the missing bytes of `[start, stop)` of the archive, as ChunkFetcher.ensure() does.

        Raises BadLayer if the file's header differs from the zTOC, and the errors of ChunkFetcher.ensure().
        """
        if not self._is_right:
            self._check()
        return self._ensure(start, stop)

    def _check(self) -> None:
        found = self._table.headers(self._start)
        if found is not None:
            header, expected = found
            if self._start - header > _MAX_HEADERS:
                raise BadLayer(f"{self._what}: the zTOC leaves {self._start - header} bytes for the headers of a file")
            headers = self._read(header, self._start)
            try:
                check_headers(headers, expected)
            except BadLayer as error:
                self._note(f"{self._what}: {error}")
                raise BadLayer(f"{self._what}: {error}") from None
        self._is_right = True
