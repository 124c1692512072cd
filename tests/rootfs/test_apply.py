"""The worked example in the docstring of regfs/rootfs/apply.py is what the code does."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing
from pathlib import Path

import regfs.rootfs.apply
from regfs.model.node_id import LAYER_SHIFT, ROW_MASK
from regfs.rootfs.apply import LayerApplication
from regfs.rootfs.working_tree import WorkingTree
from regfs.store.layers.layer_index import LayerIndex
from regfs.store.layers.layer_store import LayerStore
from tests.support.images import BuiltLayer, directory, file, layer, symlink, whiteout
from tests.support.trees import ingested

BASE = layer(
    directory("etc"), file("etc/motd"), symlink("lib", "usr/lib"), directory("usr"), directory("usr/lib"),
    compression="none",
)  # fmt: skip
UPPER = layer(whiteout("etc/motd"), file("lib/x"), directory("srv"), file("srv/a"), compression="none")
Names = dict[tuple[str, str], tuple[str, str]]


def documented() -> tuple[Names, Names]:
    """Return the table of the docstring before and after layer 1: (parent, name) to node and directory."""
    before: Names = {}
    after: Names = {}
    lines = (regfs.rootfs.apply.__doc__ or "").splitlines()
    start = next(at for at, line in enumerate(lines) if line.split()[:2] == ["parent", "name"])
    columns = [lines[start].index(word) for word in ("parent", "name", "before", "after")]
    for line in lines[start + 1 :]:
        if not line:
            break
        parent, name = line[columns[0] : columns[1]].strip(), line[columns[1] : columns[2]].strip()
        for names, cell in ((before, line[columns[2] : columns[3]]), (after, line[columns[3] : columns[3] + 25])):
            node = re.match(r"(\d:\d)(?: +directory (\d:\d))?", cell)
            if node:
                names[parent, name] = node[1], node[2] or ""
    return before, after


def node(number: int | None) -> str:
    return "" if number is None else "/" if number == 0 else f"{number >> LAYER_SHIFT}:{number & ROW_MASK}"


def names_of(tree: WorkingTree) -> Names:
    rows = tree._connection.execute("SELECT parent, name, node, directory FROM names").fetchall()
    return {(node(parent), name.decode()): (node(key), node(below)) for parent, name, key, below in rows}


def merged_one_by_one(tmp_path: Path, *layers: BuiltLayer) -> list[Names]:
    """Return the names of the working tree after each of *layers*."""
    after: list[Names] = []
    with ExitStack() as stack:
        store = stack.enter_context(closing(LayerStore(tmp_path)))
        indexes: list[LayerIndex] = [ingested(store, each) for each in layers]
        tree = stack.enter_context(closing(WorkingTree(indexes)))
        for number, index in enumerate(indexes):
            with tree.applying(number, index) as attached:
                LayerApplication(tree, attached).run()
            after.append(names_of(tree))
    return after


def test_the_worked_example_of_the_merge_is_what_it_does(tmp_path: Path) -> None:
    assert merged_one_by_one(tmp_path, BASE, UPPER) == [*documented()]
