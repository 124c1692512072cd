"""Finds what a path names in a FileTree, and the files at and below it.

Used by verbs/prefetch.py. Thread rule: any thread; nothing waits.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from regfs.errors import BadLayer, NotFound
from regfs.model.attributes import mode_of
from regfs.model.path_walk import PathWalk
from regfs.rootfs.file_tree import FileTree

_LISTED_AT_ONCE = 1000


def find(tree: FileTree, path: bytes) -> int:
    """Return the node that *path* names. Symbolic links are followed as after chroot(2): never out of the root.

    Raises NotFound, also for a loop of links; NotADirectory; CacheFailure.
    """
    walk = PathWalk(path.split(b"/"))
    directory = node = tree.root
    try:
        while (name := walk.next()) is not None:
            directory = node
            if name == b"..":
                node = tree.parent(directory)
                continue
            node, attributes = tree.lookup(directory, name)
            if stat.S_ISLNK(mode_of(attributes)):
                node = walk.follow(tree.target(node), directory, root=tree.root)
    except BadLayer as loop:
        raise NotFound(f"{path.decode(errors='replace')}: {loop}") from loop
    return node


def files_below(tree: FileTree, node: int) -> Iterator[int]:
    """Yield the regular files at and below *node*. Symbolic links are not followed. Raises CacheFailure."""
    waiting = [(node, tree.attributes(node))]
    while waiting:
        at, attributes = waiting.pop()
        mode = mode_of(attributes)
        if stat.S_ISREG(mode):
            yield at
        elif stat.S_ISDIR(mode):
            start = 0
            while children := tree.children(at, start, _LISTED_AT_ONCE):
                waiting += [(child, packed) for _, child, packed in children]
                start += len(children)
