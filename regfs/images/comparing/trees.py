"""Makes trees of what differs between two images: `added`, `removed`, `changed`; once for all processes of a cache.

Each is a merged table (rootfs/trees_of_differences.py), which is read like a rootfs/ and takes no memory. `added` and
`removed` need no bytes of files; `changed` compares files of equal size (contents.py). Used by tree/, through
pinned_images.py. Thread rule: any thread; one tree is made in one flight.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from regfs.errors import CacheDamaged, CacheFailure, NotFound
from regfs.images.comparing.contents import compared
from regfs.images.comparing.image_differences import ignore
from regfs.images.layers.layer_cache import LayerCache
from regfs.process.waiting.deadline import current
from regfs.rootfs.differences import Difference, Kind, differences
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.trees_of_differences import Changed, DifferingTree, OneSided
from regfs.store.files.cached_files import take_away
from regfs.store.files.failures import failures_of
from regfs.store.images.merged_table import MergedTable, MergedTableWriter
from regfs.store.images.tables_of_differences import differing_path, drop_oldest, sums_of
from regfs.store.locks.file_locks import touch

log = logging.getLogger(__name__)

_TOLD_EACH = 1000


class DifferingTrees:
    """The trees of what differs between the images of one cache."""

    def __init__(self, contents: LayerCache) -> None:
        self._contents = contents
        self._store = contents.store
        self._trees: WeakValueDictionary[Path, Rootfs] = WeakValueDictionary()

    def tree(self, kind: Kind, a: Rootfs, b: Rootfs) -> Rootfs:
        """Return what was added, removed or changed from *a* to *b*, as a tree.

        Blocks for the comparison unless it was made before, and on the network for bytes that it needs. Raises the
        errors of the network, TooLarge, CacheFailure.
        """
        path = differing_path(kind, a.merged.path, b.merged.path)
        known = self._trees.get(path) or self._opened(path, kind, a, b)
        if known is not None:
            return known
        making = partial(self._made, path, kind, a, b)
        return self._contents.flights.run(("comparison", path.name), making, streams=True)

    def _made(self, path: Path, kind: Kind, a: Rootfs, b: Rootfs) -> Rootfs:
        made = self._opened(path, kind, a, b)  # made by a flight that has just ended
        if made is None:
            self._store.with_room(partial(self._write, path, kind, a, b))
            made = self._opened(path, kind, a, b)
        if made is None:
            raise CacheFailure(f"{path} vanished from the cache")
        return made

    def _opened(self, path: Path, kind: Kind, a: Rootfs, b: Rootfs) -> Rootfs | None:
        """Return the tree if the cache has its table, else None."""
        try:
            use = self._store.uses.announce(b.merged.path)
            again = partial(self._make_again, path, kind, a, b)
            table = MergedTable(path, tables=self._store.tables, use=use, make_again=again)
            table.open_now()
        except NotFound:
            return None
        except CacheDamaged as failure:
            self._drop(path, failure)
            return None
        touch(path)
        trees = [*([a] if kind != "added" else []), *([b] if kind != "removed" else [])]
        layers = [layer for tree in trees for layer in tree.layers]
        diff_ids = [digest for tree in trees for digest in tree.diff_ids]
        opened = Rootfs(table, layers, diff_ids=diff_ids, tables=self._store.tables)
        return self._trees.setdefault(path, opened)

    def _make_again(self, path: Path, kind: Kind, a: Rootfs, b: Rootfs, failure: CacheFailure) -> None:
        if isinstance(failure, CacheDamaged):
            self._drop(path, failure)
        if not path.exists():
            log.info("%s; the images are compared again", failure)
            write = partial(self._store.with_room, partial(self._write, path, kind, a, b))
            self._contents.flights.run(("comparison", path.name, "again"), write, streams=True)

    def _drop(self, path: Path, failure: CacheDamaged) -> None:
        log.warning("%s; the images are compared again", failure)
        with suppress(OSError):
            take_away(path)

    def _write(self, path: Path, kind: Kind, a: Rootfs, b: Rootfs) -> None:
        with failures_of(path):
            self._store.budget.reserve_table(a.size_of_tables() + b.size_of_tables())
        drop_oldest(path)
        found: Iterable[Difference] = ()
        if kind == "changed":
            tree: DifferingTree = Changed(a, b)
            counts: Sequence[int] = [*a.merged.row_counts(), *b.merged.row_counts()]
            found = compared(self._contents, a, b, report=ignore)
        else:
            source = b if kind == "added" else a
            tree, counts = OneSided(source, kind), source.merged.row_counts()
            if not a.has_tree_of(b):
                found = differences(a, b)
        writer = MergedTableWriter(path)
        try:
            writer.fill(tree.rows(_told(found)), tree.links)
            writer.finish(tree.root, tree.root_attributes(), row_counts=counts, sums=sums_of(path))
        finally:
            writer.abandon()


def _told(found: Iterable[Difference]) -> Iterator[Difference]:
    """Yield the differences *found*, and report progress to the waiting threads."""
    for number, each in enumerate(found):
        if number % _TOLD_EACH == 0:
            current().moved()
        yield each
