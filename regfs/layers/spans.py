"""Records, during an ingest, which ranges of a layer's blob hold which ranges of its archive, each with a digest.

With these spans the bytes of a file can be fetched and verified without the rest of the layer:

    zstd            from each frame on
    gzip            from each checkpoint on (checkpoints.py), with the 32 KiB before it
    not compressed  from each byte on
    otherwise       (one big zstd frame) by decompressing the layer from its start; `stored` is 0 then

    zstd frames     [ frame ][ frame ][ skippable ][ frame ]
    spans           [      span      ]             [ span  ]        at least LEAST_SPAN bytes of the archive each

The thread that decompresses calls seek(), the one that hashes the archive calls update(). A FrameSpans records what
costs nothing: for the ordinary zstd layer, which is one frame, nothing is hashed twice, since the digest of the first
span is that of the archive so far. Frames of more than MOST_SPAN bytes are of no use to it, because a span is
decompressed in memory. An AllSpans records spans for all of the archive, in pieces, for a layer that cannot be kept.

Used by ingest.py. Thread rule: as above; spans() once both have ended.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import NamedTuple

from regfs.layers.formats.format import MAX_MEMBER
from regfs.model.digest import Digest, Hasher

LEAST_SPAN = 1 << 20
MOST_SPAN = MAX_MEMBER
PIECE = 4 << 20


class Span(NamedTuple):
    """*size* bytes of the archive from *start* on, with *digest*.

    They begin at *inner* of what the *stored* bytes of the blob at *at* decompress to. *stored* is 0 where only the
    whole layer can be decompressed.
    """

    start: int
    size: int
    at: int
    stored: int
    inner: int
    digest: Digest


class Restart(NamedTuple):
    """What inflating at byte *at* of a gzip blob needs: see layers/formats/ztoc.py. *window* is compressed."""

    at: int
    bits: int
    window: bytes


class _Seek(NamedTuple):
    """A place where a span ends and the next begins: byte *out* of the archive; in the blob, bytes *end* and *begin*.

    What is between these belongs to skippable frames.
    """

    end: int
    begin: int
    out: int


class _Piece(NamedTuple):
    start: int
    stop: int
    digest: Digest


class FrameSpans:
    """Hashes an archive, whose digest is said to be *diff_id*, and records the spans of its blob."""

    def __init__(self, diff_id: Digest) -> None:
        """Raises Unsupported where Python cannot compute the digest."""
        self._algorithm = diff_id.algorithm
        self._archive = diff_id.hasher()
        self._new_hasher = diff_id.hasher
        self._hasher: Hasher | None = None
        """Of the current piece, None for the first one."""
        self._pieces: list[_Piece] = []
        self._begun = 0
        self._done = 0
        self._seen = 0
        self._is_useful = True
        self._seeks = [_Seek(0, 0, 0)]
        """The begins of all spans. Appended to by one thread and read by the other."""
        self._end = _Seek(0, 0, 0)
        self.restarts: list[Restart] = []

    def seek(self, at: int, out: int, *, bits: int = 0, window: bytes = b"") -> None:
        """Note that decompressing can begin at byte *at* of the blob, which is byte *out* of the archive.

        Of a gzip blob, the highest *bits* bits of the byte before belong to it, and *window* is what came before.
        Called before any byte behind *out* is given to the thread that hashes.
        """
        last, begin = self._seeks[-1], at - bool(bits)
        if out > self._end.out:
            self._end = _Seek(at, begin, out)
        if out == last.out:
            self._seeks[-1] = last._replace(begin=begin)
        elif out - last.out >= LEAST_SPAN:
            self._seeks.append(_Seek(at, begin, out))
        else:
            return
        if window:
            self.restarts.append(Restart(begin, bits, zlib.compress(window, 1)))

    def update(self, block: memoryview) -> None:
        """Hash the next bytes of the archive."""
        while (cut := self._next_cut()) is not None and cut - self._done <= len(block):
            ahead = cut - self._done
            self._hash(block[:ahead])
            block = block[ahead:]
            self._end_piece()
        self._hash(block)

    def hexdigest(self) -> str:
        """Return the digest of the whole archive."""
        return self._archive.hexdigest()

    def spans(self, blob_size: int) -> list[Span]:
        """Return the spans of the blob, which has *blob_size* bytes; none where one span would be all of it."""
        self._finish()
        seeks = self._all_seeks(blob_size)
        return self._assembled(seeks) if self._is_useful and len(seeks) > 2 else []  # the last one is the end

    def _next_seek(self) -> int | None:
        """Return where in the archive the next span begins, None if that is not known yet."""
        return self._seeks[self._seen + 1].out if self._seen + 1 < len(self._seeks) else None

    def _next_cut(self) -> int | None:
        """Return where the current piece ends, None if that is not known yet."""
        return self._next_seek()

    def _finish(self) -> None:
        self.update(memoryview(b""))  # the last frame may have been noted after its last byte was hashed
        if self._done > self._begun:
            self._end_piece()

    def _hash(self, part: memoryview) -> None:
        self._archive.update(part)
        self._done += len(part)
        if self._done - self._begun > MOST_SPAN:
            self._is_useful, self._hasher = False, None
        elif self._hasher is not None:
            self._hasher.update(part)

    def _end_piece(self) -> None:
        hasher = self._hasher or self._archive
        self._pieces.append(_Piece(self._begun, self._done, Digest(self._algorithm, hasher.hexdigest())))
        self._begun = self._done
        if self._done == self._next_seek():
            self._seen += 1
        self._hasher = self._new_hasher() if self._is_useful else None

    def _all_seeks(self, blob_size: int) -> list[_Seek]:
        """Return the begins of all spans, and the end of the last one."""
        if self._seeks[-1].out == self._done:
            return self._seeks
        end = self._end if self._end.out == self._done else _Seek(blob_size, blob_size, self._done)
        return [*self._seeks, end]

    def _assembled(self, seeks: list[_Seek]) -> list[Span]:
        spans: list[Span] = []
        pieces = iter(self._pieces)
        for begin, end in pairwise(seeks):
            fits = end.out - begin.out <= MOST_SPAN and end.end - begin.begin <= 2 * MOST_SPAN
            at, stored = (begin.begin, end.end - begin.begin) if fits else (0, 0)
            for start, stop, digest in pieces:
                inner = start - begin.out if fits else 0
                spans.append(Span(start, stop - start, at, stored, inner, digest))
                if stop == end.out:
                    break
        return spans


class AllSpans(FrameSpans):
    """Records the spans of all of an archive, in pieces of at most PIECE bytes."""

    is_compressed = True
    """Whether the blob is not the archive itself. Set before the first byte."""

    def _next_cut(self) -> int | None:
        cut, most = self._next_seek(), self._begun + PIECE
        return most if cut is None else min(cut, most)

    def _hash(self, part: memoryview) -> None:
        self._archive.update(part)
        self._done += len(part)
        if self._hasher is not None:
            self._hasher.update(part)

    def spans(self, blob_size: int) -> list[Span]:
        """Return the spans of all of the blob."""
        self._finish()
        if not self.is_compressed:
            return [Span(start, stop - start, start, stop - start, 0, digest) for start, stop, digest in self._pieces]
        return self._assembled(self._all_seeks(blob_size))
