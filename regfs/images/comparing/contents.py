"""Decides the differences of two merged trees, by a comparison of bytes if needed, and keeps the result.

Undecided paths are decided in batches, so that the missing bytes of lazily fetched layers come in few requests. Files
are compared up to the first byte that differs. Files that turn out to be equal have one digest, which is computed on
the way and kept beside the indexes of both layers: from then on a comparison with any other image reads neither again.
Used by image_differences.py. Thread rule: a comparison belongs to one thread.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from regfs.errors import CacheFailure
from regfs.images.layers.layer_cache import LayerCache
from regfs.model.attributes import size_of
from regfs.model.digest import Digest
from regfs.process.waiting.deadline import current
from regfs.rootfs.differences import NONE, Difference, Field, differences, has_bytes_to_compare, rows_differ
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content, Nothing
from regfs.store.layers.content_digests import ContentDigests

log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]
Nodes = tuple[int | None, int | None]

_AT_ONCE = 256
_BYTES_AT_ONCE = 64 << 20
# Larger pieces would be allocated by mmap(2) for each read.
_PIECE = 64 << 10


def compared(
    cache: LayerCache, a: Rootfs, b: Rootfs, *, report: Report, path: bytes = b"", nodes: Nodes | None = None
) -> Iterator[Difference]:
    """Yield what differs from *a* to *b*, decided; see differences(). The result for whole trees is kept in the cache.

    Blocks on the network for missing bytes of files that must be compared. *report* is called with a layer, its bytes
    that are here, and their total. Raises the errors of the network, and CacheFailure.
    """
    if nodes is None and a.has_tree_of(b):
        return
    kept = cache.kept_verdicts(a, b) if nodes is None else None
    found = differences(a, b, path=path, nodes=nodes)
    decided = _as_kept(found, kept) if kept is not None else _Comparison(cache, a, b, report).decided(found)
    verdicts = bytearray()
    for each, verdict in decided:
        if each.is_undecided:
            verdicts.append(verdict)
        fields = each.fields | verdict if verdict else each.fields  # an operation on an IntFlag takes a microsecond
        if fields or each.kind != "changed":
            yield each._replace(fields=fields, is_undecided=False)
    if kept is None and nodes is None and verdicts:
        cache.keep_verdicts(a, b, bytes(verdicts))


def _as_kept(found: Iterable[Difference], kept: bytes) -> Iterator[tuple[Difference, Field]]:
    verdicts = iter(kept)
    for each in found:
        verdict = next(verdicts) if each.is_undecided else 0
        yield each, Field(verdict) if verdict else NONE


class _Comparison:
    """One comparison of the files of two trees."""

    def __init__(self, cache: LayerCache, a: Rootfs, b: Rootfs, report: Report) -> None:
        self._cache, self._a, self._b = cache, a, b
        self._report = report
        self._is_all_here = cache.has_all(a.diff_ids) and cache.has_all(b.diff_ids)
        self._digests: dict[Digest, ContentDigests] = {}

    def decided(self, found: Iterable[Difference]) -> Iterator[tuple[Difference, Field]]:
        """Yield the differences *found* in order, each with what differs beyond its attributes."""
        waiting: list[Difference] = []
        size = 0
        try:
            for each in found:
                waiting.append(each)
                size += size_of(each.a[2]) if each.a is not None and has_bytes_to_compare(each) else 0
                if len(waiting) >= _AT_ONCE or size > _BYTES_AT_ONCE:
                    yield from self._decide(waiting)
                    waiting, size = [], 0
            yield from self._decide(waiting)
        finally:
            self._keep_digests()

    def _decide(self, waiting: list[Difference]) -> Iterator[tuple[Difference, Field]]:
        if not self._is_all_here:
            self._cache.fetch(self._contents(waiting), self._report)
        for each in waiting:
            yield each, rows_differ(self._a, self._b, each, self._differ) if each.is_undecided else NONE

    def _contents(self, waiting: Iterable[Difference]) -> Iterator[Content]:
        """Yield the contents of files in *waiting* that must be read: their digests are unknown."""
        for each in filter(has_bytes_to_compare, waiting):
            assert each.a is not None
            assert each.b is not None
            pair = self._a.content(each.a[1]), self._b.content(each.b[1])
            yield from (content for content in pair if self._known(content) is None)

    def _differ(self, left: Content, right: Content) -> bool:
        one, other = self._known(left), self._known(right)
        if one is None and other is None:
            return self._bytes_differ(left, right)
        return (one or self._hashed(left)) != (other or self._hashed(right))

    def _bytes_differ(self, left: Content, right: Content) -> bool:
        """Compare two files up to the first difference. If there is none, note their digest, computed meanwhile."""
        hasher = hashlib.sha256()
        with closing(self._cache.open(left)) as one, closing(self._cache.open(right)) as other:
            for offset in range(0, left.size, _PIECE):
                current().moved()  # threads may wait for this comparison
                piece = one.read_at(offset, _PIECE)
                if piece != other.read_at(offset, _PIECE):
                    return True
                hasher.update(piece)
        for content in (left, right):
            self._note(content, hasher.digest())
        return False

    def _hashed(self, content: Content) -> bytes:
        hasher = hashlib.sha256()
        with closing(self._cache.open(content)) as opened:
            for offset in range(0, content.size, _PIECE):
                current().moved()
                hasher.update(opened.read_at(offset, _PIECE))
        self._note(content, hasher.digest())
        return hasher.digest()

    def _known(self, content: Content) -> bytes | None:
        return None if isinstance(content, Nothing) else self._of_layer(content.layer).find(content.offset)

    def _note(self, content: Content, digest: bytes) -> None:
        if not isinstance(content, Nothing):
            self._of_layer(content.layer).add(content.offset, digest)

    def _of_layer(self, layer: Digest) -> ContentDigests:
        digests = self._digests.get(layer)
        if digests is None:
            digests = self._digests[layer] = ContentDigests(self._cache.store.digests_path(layer))
        return digests

    def _keep_digests(self) -> None:
        for digests in self._digests.values():
            try:
                digests.keep(self._cache.store.budget)
            except CacheFailure as failure:  # without them, files are read again
                log.info("digests of files are not kept: %s", failure)
