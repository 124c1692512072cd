"""Layers ingested and merged, and what the trees of rootfs/ show, as a snapshot (tests/support/snapshot.py)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from regfs.layers.ingest import Progress, read_layer
from regfs.model.attributes import Attributes
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.layer_tree import LayerTree
from regfs.rootfs.merge import merge
from regfs.rootfs.rootfs import Rootfs
from regfs.store.images.merged_table import MergedTable
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from regfs.store.tables.open_tables import OpenTables
from tests.support.images import BuiltLayer
from tests.support.snapshot import Entry


def ingested(store: LayerStore, layer: BuiltLayer) -> LayerIndex:
    """Return the index of *layer* after it was ingested into *store*."""
    if not store.is_ingested(layer.diff_id):
        with store.begin_layer() as writer:
            read_layer(iter([memoryview(layer.tar)]), writer, Progress())
            store.publish(writer, layer.diff_id)
    return store.open_index(layer.diff_id)


class MergedImage:
    """The rootfs of *layers*, base first, in a cache below *directory*. What the layers' bytes cause is raised here."""

    def __init__(self, directory: Path, *layers: BuiltLayer) -> None:
        self.layers = layers
        self.store = LayerStore(directory, boot="test")
        self.indexes = [ingested(self.store, layer) for layer in layers]
        merge(self.indexes, directory / "merged")
        self.merged = MergedTable.open(directory / "merged")
        self.rootfs = Rootfs(
            self.merged, self.indexes, diff_ids=[layer.diff_id for layer in layers], tables=OpenTables()
        )

    def snapshot(self) -> dict[bytes, Entry]:
        return snapshot_of(self.rootfs, self.store)

    def close(self) -> None:
        self.merged.close()
        for index in self.indexes:
            index.close()
        self.store.close()


Stack = Callable[..., MergedImage]
"""Merges layers, base first, each given as a list of entries."""


def layer_tree(directory: Path, layer: BuiltLayer) -> tuple[LayerTree, LayerStore]:
    """Return the tree of one layer alone, and the store that its contents are in."""
    store = LayerStore(directory, boot="test")
    return LayerTree(ingested(store, layer), diff_id=layer.diff_id), store


def snapshot_of(tree: FileTree, store: LayerStore) -> dict[bytes, Entry]:
    """Return every entry of *tree* (and the root as b'.') by its path, each look-up checked against the listing."""
    entries: dict[bytes, Entry] = {}
    first_names: dict[int, bytes] = {}
    pending = [(b".", tree.root, tree.attributes(tree.root))]
    while pending:
        path, node, packed = pending.pop()
        entries[path] = _entry(tree, store, node, path, packed, first_names)
        if stat.S_ISDIR(Attributes.unpack(packed).mode):
            children = _children(tree, node)
            prefix = b"" if path == b"." else path + b"/"
            pending.extend((prefix + name, child, attributes) for name, child, attributes in reversed(children))
    return entries


def _children(tree: FileTree, node: int) -> list[tuple[bytes, int, bytes]]:
    count = tree.count(node)
    children: list[tuple[bytes, int, bytes]] = []
    while len(children) < count:
        children += tree.children(node, len(children), 3)
    assert tree.children(node, count, 3) == []
    assert [name for name, _, _ in children] == sorted({name for name, _, _ in children})
    subdirectories = 0
    for name, child, attributes in children:
        assert tree.lookup(node, name) == (child, attributes)
        assert tree.attributes(child) == attributes
        if stat.S_ISDIR(Attributes.unpack(attributes).mode):
            subdirectories += 1
            assert tree.parent(child) == node
    assert Attributes.unpack(tree.attributes(node)).nlink == 2 + subdirectories
    return children


def _entry(
    tree: FileTree, store: LayerStore, node: int, path: bytes, packed: bytes, first_names: dict[int, bytes]
) -> Entry:
    attributes = Attributes.unpack(packed)
    mode = attributes.mode
    regular = stat.S_ISREG(mode)
    links = 1 if stat.S_ISDIR(mode) else attributes.nlink
    return Entry(
        kind=stat.filemode(mode)[0],
        mode=f"{stat.S_IMODE(mode):04o}",
        uid=attributes.uid,
        gid=attributes.gid,
        mtime_ns=attributes.mtime_ns,
        size=attributes.size if regular else 0,
        content=_sha256(tree, store, node, attributes.size) if regular else "",
        target=tree.target(node) if stat.S_ISLNK(mode) else b"",
        device=stat_device(attributes.rdev),
        links=links,
        group=first_names.setdefault(node, path) if links > 1 else path,
        xattrs=tuple(sorted((os.fsdecode(name), value) for name, value in tree.xattrs(node).items())),
    )


def _sha256(tree: FileTree, store: LayerStore, node: int, size: int) -> str:
    opened = store.open_content(tree.content(node))
    content = opened.read_at(0, size + 1)
    opened.close()
    assert len(content) == size
    return hashlib.sha256(content).hexdigest()


def stat_device(number: int) -> int:
    """Return the device number that stat(2) gives for the kernel's 32-bit one (include/linux/kdev_t.h)."""
    return os.makedev((number >> 8) & 0xFFF, (number & 0xFF) | (number >> 12) & 0xFFF00)
