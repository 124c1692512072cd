"""The differences of two merged trees with all bytes compared that must be; what was found is kept.

Undecided paths are decided some at a time, so that what is missing of lazily fetched layers comes in few requests.
Bytes are compared with bytes: that takes a fifth of the time of two digests, and ends at the first that differs.
Used by image_differences.py. Thread rule: a comparison belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from regfs.images.layers.layer_cache import LayerCache
from regfs.model.attributes import size_of
from regfs.rootfs.differences import NONE, Difference, Field, differences, has_bytes_to_compare, rows_differ
from regfs.rootfs.rootfs import Rootfs
from regfs.store.layers.content import Content
from regfs.waiting.deadline import current

Report = Callable[[str, int, int], None]
Nodes = tuple[int | None, int | None]

_AT_ONCE = 256
_BYTES_AT_ONCE = 64 << 20
# More than this, and each read would ask the system for new pages.
_PIECE = 64 << 10


def compared(
    cache: LayerCache, a: Rootfs, b: Rootfs, *, report: Report, path: bytes = b"", nodes: Nodes | None = None
) -> Iterator[Difference]:
    """Yield what differs from *a* to *b*, decided; see differences(). Whole trees are compared once: that is kept.

    Blocks on the network for what lazily fetched layers lack of files that must be compared; *report* hears how many of
    how many bytes of which layer are here. Raises what that brings, and CacheFailure.
    """
    if a.diff_ids == b.diff_ids and nodes is None:
        return
    kept = cache.kept_verdicts(a, b) if nodes is None else None
    found = differences(a, b, path=path, nodes=nodes)
    decided = _as_kept(found, kept) if kept is not None else _Comparison(cache, a, b, report).decided(found)
    verdicts = bytearray()
    for each, verdict in decided:
        if each.is_undecided:
            verdicts.append(verdict)
        fields = each.fields | verdict if verdict else each.fields  # an operation of enum takes a microsecond
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
    """One comparison of bytes."""

    def __init__(self, cache: LayerCache, a: Rootfs, b: Rootfs, report: Report) -> None:
        self._cache, self._a, self._b = cache, a, b
        self._report = report
        self._is_all_here = cache.has_all(a.diff_ids) and cache.has_all(b.diff_ids)

    def decided(self, found: Iterable[Difference]) -> Iterator[tuple[Difference, Field]]:
        """Yield what was *found* in its order, each with what differs beyond its attributes."""
        waiting: list[Difference] = []
        size = 0
        for each in found:
            waiting.append(each)
            size += size_of(each.a[2]) if each.a is not None and has_bytes_to_compare(each) else 0
            if len(waiting) >= _AT_ONCE or size > _BYTES_AT_ONCE:
                yield from self._decide(waiting)
                waiting, size = [], 0
        yield from self._decide(waiting)

    def _decide(self, waiting: list[Difference]) -> Iterator[tuple[Difference, Field]]:
        if not self._is_all_here:
            self._cache.fetch(self._contents(waiting), self._report)
        for each in waiting:
            yield each, rows_differ(self._a, self._b, each, self._differ) if each.is_undecided else NONE

    def _contents(self, waiting: Iterable[Difference]) -> Iterator[Content]:
        for each in filter(has_bytes_to_compare, waiting):
            assert each.a is not None
            assert each.b is not None
            yield self._a.content(each.a[1])
            yield self._b.content(each.b[1])

    def _differ(self, left: Content, right: Content) -> bool:
        with closing(self._cache.open(left)) as one, closing(self._cache.open(right)) as other:
            for offset in range(0, left.size, _PIECE):
                current().moved()  # threads may wait for this comparison
                if one.read_at(offset, _PIECE) != other.read_at(offset, _PIECE):
                    return True
        return False
