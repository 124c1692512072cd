"""Records, during an ingest, which ranges of a layer's blob hold which ranges of its archive, each with a digest.

With these spans the bytes of a file can be fetched and verified without the rest of the layer. A zstd layer of several
frames can be decompressed from each frame on. The spans of a layer follow each other without gaps:

    zstd frames    [ frame ][ frame ][ skippable ][ frame ]
    spans          [      span      ]             [ span  ]        at least LEAST_SPAN bytes of the archive each

The thread that decompresses calls seek(), the one that hashes the archive calls update(). For the ordinary layer, which
is one frame, this costs nothing: the digest of the first span is that of the archive so far. Only from the second
span on are bytes hashed twice. Frames of more than MOST_SPAN bytes are of no use, because a span is decompressed in
memory.

Used by ingest.py. Thread rule: as above; spans() once both have ended.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from regfs.layers.formats.format import MAX_MEMBER
from regfs.model.digest import Digest, Hasher

LEAST_SPAN = 1 << 20
MOST_SPAN = MAX_MEMBER


class Span(NamedTuple):
    """*size* bytes of the archive from *start* on, with *digest*: what the *stored* bytes of the blob at *at* hold."""

    start: int
    size: int
    at: int
    stored: int
    digest: Digest


class _Seek(NamedTuple):
    """A place where a span ends and the next begins: byte *out* of the archive; in the blob, bytes *end* and *begin*.

    What is between these belongs to skippable frames.
    """

    end: int
    begin: int
    out: int


class SpanRecorder:
    """Hashes an archive, whose digest is said to be *diff_id*, and records the spans of its blob."""

    def __init__(self, diff_id: Digest) -> None:
        """Raises Unsupported where Python cannot compute the digest."""
        self._algorithm = diff_id.algorithm
        self._archive = diff_id.hasher()
        self._new_hasher = diff_id.hasher
        self._hasher: Hasher | None = None
        """Of the current span, None for the first one."""
        self._digests: list[Digest] = []
        self._done = 0
        self._is_useful = True
        self._seeks = [_Seek(0, 0, 0)]
        """The begins of all spans. Appended to by one thread and read by the other."""
        self._end = _Seek(0, 0, 0)

    def seek(self, at: int, out: int) -> None:
        """Note that decompressing can begin at byte *at* of the blob, which is byte *out* of the archive.

        Called before any byte behind *out* is given to the thread that hashes.
        """
        last = self._seeks[-1]
        if out > self._end.out:
            self._end = _Seek(at, at, out)
        if out == last.out:
            self._seeks[-1] = last._replace(begin=at)
        elif out - last.out >= LEAST_SPAN:
            self._seeks.append(_Seek(at, at, out))

    def update(self, block: memoryview) -> None:
        """Hash the next bytes of the archive."""
        while len(self._digests) + 1 < len(self._seeks):
            ahead = self._seeks[len(self._digests) + 1].out - self._done
            if ahead > len(block):
                break
            self._hash(block[:ahead])
            block = block[ahead:]
            self._end_span()
        self._hash(block)

    def hexdigest(self) -> str:
        """Return the digest of the whole archive."""
        return self._archive.hexdigest()

    def spans(self) -> list[Span]:
        """Return the spans of the blob; none where one span would be all of it, or too big."""
        self.update(memoryview(b""))  # the last frame may have been noted after its last byte was hashed
        seeks = self._seeks
        if self._done > seeks[-1].out:
            self._end_span()
            seeks = [*seeks, self._end]
        if not self._is_useful or len(self._digests) < 2:
            return []
        return [
            Span(begin.out, end.out - begin.out, begin.begin, end.end - begin.begin, digest)
            for (begin, end), digest in zip(pairwise(seeks), self._digests, strict=True)
        ]

    def _hash(self, part: memoryview) -> None:
        self._archive.update(part)
        self._done += len(part)
        if self._done - self._seeks[len(self._digests)].out > MOST_SPAN:
            self._is_useful, self._hasher = False, None
        elif self._hasher is not None:
            self._hasher.update(part)

    def _end_span(self) -> None:
        hasher = self._hasher or self._archive
        self._digests.append(Digest(self._algorithm, hasher.hexdigest()))
        self._hasher = self._new_hasher() if self._is_useful else None
