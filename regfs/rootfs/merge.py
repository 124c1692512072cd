"""The merge: the layers of an image become one table (store/images/merged_table.py).

Layers are applied one after the other to a working tree, entry by entry in the order of their archives, so the result
is what unpacking them would leave. Directories that one layer alone has are left to its index
(unshared_directories.py). What the layers share is then written in the order in which it is read. Memory holds the page
caches of SQLite (70 MB), a byte for each row of one layer, and 200 bytes for each directory that layers share. Used by
images/workers/, which runs merge_files() in a worker for large images: the merge keeps the interpreter busy. Pure but
for its files; a merge belongs to one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import MappingProxyType

from regfs.errors import CacheFailure, TooLarge
from regfs.model.attributes import with_nlink
from regfs.model.node_id import INVENTED_LAYER, LAYER_SHIFT
from regfs.rootfs.apply import LayerApplication
from regfs.rootfs.working_tree import ROOT, WorkingTree
from regfs.store.images.merged_table import MergedTableWriter
from regfs.store.layers.layer_index import LayerIndex

# An inode number has 32 bits for the entries of an image, and directories invented by the merge need some of them.
MOST_ROWS = (1 << 32) - 2 * (1 << LAYER_SHIFT)

Hidden = Mapping[int, frozenset[bytes]]
"""The hidden names in a layer's root (layers/formats/format.py), by the layer's number. Most layers have none."""
_NONE: Hidden = MappingProxyType({})


def merge_files(layers: Sequence[Path], destination: Path, *, hidden: Hidden = _NONE) -> None:
    """Write the merged table of the layer indexes *layers* (paths, base first) to *destination*; see merge()."""
    with ExitStack() as stack:
        merge([stack.enter_context(closing(LayerIndex.open(path))) for path in layers], destination, hidden=hidden)


def merge(layers: Sequence[LayerIndex], destination: Path, *, hidden: Hidden = _NONE) -> None:
    """Write the merged table of *layers* (base first) to *destination*: whole, flushed and renamed, or not at all.

    *hidden* are names in each layer's root that are left out. Raises BadLayer, naming layer (base 0) and path, if an
    unpacker would refuse the image; TooLarge; CacheFailure if the disk is full or cannot be written.
    """
    if len(layers) >= INVENTED_LAYER:
        raise TooLarge(f"an image of {len(layers)} layers; {INVENTED_LAYER - 1} are the most that can be merged")

    if sum(index.last_row() + 1 for index in layers) > MOST_ROWS:
        raise TooLarge(f"the image's layers have more than {MOST_ROWS} entries")

    try:
        with closing(WorkingTree(layers)) as tree:
            for number, index in enumerate(layers):
                with tree.applying(number, index) as attached:
                    LayerApplication(tree, attached, hidden=hidden.get(number, frozenset())).run()
            _write(tree, destination, row_counts=[index.last_row() + 1 for index in layers])
    except sqlite3.Error as error:
        raise CacheFailure(f"merging into {destination}: {error}") from error


def _write(tree: WorkingTree, destination: Path, *, row_counts: Sequence[int]) -> None:
    """Write the finished tree in the order in which it is read, with its link counts."""
    writer = MergedTableWriter(destination)
    try:
        tree.write(writer.path)
        root = with_nlink(tree.root_attributes, 2 + tree.count_subdirectories(ROOT))
        writer.finish(tree.root_node, root, row_counts=row_counts)
    finally:
        writer.abandon()
