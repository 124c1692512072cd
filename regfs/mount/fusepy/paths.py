"""Paths to nodes, for the fusepy driver: libfuse 2 asks by path, the tree answers by node.

A path is walked from its nearest known ancestor, one look-up for each component. The result is remembered for as long
as the tree says that it is valid (valid_s): for ever below a digest, seconds at a tag. A path below a tag is only as
valid as the tag, so each remembered path knows the nearest name above it that may change: its *anchor*.

While a file or directory below an anchor is open, the anchor stays valid: a process that reads an image while its tag
moves stays in that image, and the kernel, which knows libfuse's nodes by path, never mixes pages of two images in one
inode.

Used by operations.py and adapter.py. Thread rule: any thread. The lock is never held during a call of the tree.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cachetools import LRUCache

from regfs.errors import NameTooLong
from regfs.model.names import NAME_MAX
from regfs.model.node_id import ROOT
from regfs.model.whiteout import is_too_long

if TYPE_CHECKING:
    from regfs.tree.entry import FoundEntry, ListedEntry


class Lookups(Protocol):
    """The part of a FileSystem that Paths uses."""

    def lookup(self, parent: int, name: bytes) -> FoundEntry: ...

    def attributes(self, node: int) -> FoundEntry: ...

    def forget(self, node: int, count: int) -> None: ...


@dataclass(slots=True, eq=False)
class Anchor:
    """A name that may change its meaning: when it expires, how much is open below it, and the anchor above it."""

    expires: float
    above: Anchor | None
    uses: int = 0


class PathNode:
    """What a path leads to: a node, its 88 bytes of attributes, and the anchor that it depends on.

    It refers to the PathNode above it, and gives its look-up back to the tree when nothing refers to it any more: so a
    request, an open file or a remembered path never has a node that the tree has dropped.
    """

    __slots__ = ("_gone", "above", "anchor", "attributes", "moves", "node")

    def __init__(
        self,
        found: FoundEntry | ListedEntry,
        anchor: Anchor | None,
        above: PathNode | None,
        *,
        gone: deque[int] | None = None,
    ) -> None:
        """*gone* takes the node in the end, if the tree counted a look-up of it."""
        self.node = found.node
        self.attributes = found.attributes
        self.anchor = anchor
        self.above = above
        self.moves = above is None or anchor is not above.anchor
        self._gone = gone

    def __del__(self) -> None:
        # Not tree.forget(): the garbage collector may call this while the tree holds its lock.
        if self._gone is not None:
            self._gone.append(self.node)

    @property
    def directory_anchor(self) -> Anchor | None:
        """The anchor that an open file keeps valid: that of its directory, since its own name may move."""
        return self.anchor.above if self.moves and self.anchor is not None else self.anchor


class Paths:
    """Walks paths, and remembers the nodes of the *most* paths that were used last."""

    def __init__(self, tree: Lookups, *, clock: Callable[[], float] = time.monotonic, most: int = 60_000) -> None:
        self._tree = tree
        self._clock = clock
        self._lock = threading.Lock()
        self._path_nodes: LRUCache[bytes, PathNode] = LRUCache(most)
        self._gone: deque[int] = deque()

    def find(self, path: bytes) -> PathNode:
        """Return the place of *path* (absolute, without `.` or `..`). May block; raises what the tree raises."""
        missing: list[bytes] = []
        prefix = path
        while (path_node := self._valid(prefix)) is None:
            if prefix == b"/":
                found = self._tree.attributes(ROOT)
                path_node = self._keep(b"/", PathNode(found, self._anchor(found, None, None), None))
                break
            above, _, name = prefix.rpartition(b"/")
            missing.append(name)
            prefix = above or b"/"
        while missing:
            name = missing.pop()
            prefix = prefix + name if prefix == b"/" else prefix + b"/" + name
            path_node = self._look_up(path_node, name, prefix)
        return path_node

    def hold(self, path_node: PathNode) -> None:
        """Keep the anchor of *path_node* from moving until `release`, since something below it is open."""
        anchor = path_node.directory_anchor
        if anchor is not None:
            with self._lock:
                anchor.uses += 1

    def release(self, path_node: PathNode) -> None:
        """End one hold() of *path_node*."""
        anchor = path_node.directory_anchor
        if anchor is not None:
            with self._lock:
                anchor.uses -= 1

    def remember(self, directory: PathNode, path: bytes, found: FoundEntry | ListedEntry) -> None:
        """Remember the entry at *path* from a listing of *directory*, unless it may change or is known."""
        if math.isinf(found.valid_s) and self._known(path) is None:
            self._keep(path, PathNode(found, directory.anchor, directory))

    def remember_for_a_moment(self, directory: PathNode, path: bytes, look_up: Callable[[], ListedEntry]) -> None:
        """Remember what *look_up* returns for the entry at *path*, unless it is known. It counts as one look-up.

        The attributes are placeholders for some that take long to get, so that `ls -l` is quick; a later request waits
        for the real ones.
        """
        if self._valid(path) is None:
            found = look_up()
            anchor = Anchor(self._clock() + found.valid_s, directory.anchor)
            self._keep(path, PathNode(found, anchor, directory, gone=self._gone))

    def drop(self, path: bytes) -> None:
        """Forget the node of *path*: its attributes have changed."""
        with self._lock:
            self._path_nodes.pop(path, None)

    def expire(self) -> None:
        """Expire all names that may change their meaning, except those with something open below."""
        with self._lock:
            for path_node in self._path_nodes.values():
                if path_node.anchor is not None:
                    path_node.anchor.expires = -math.inf

    def _look_up(self, parent: PathNode, name: bytes, path: bytes) -> PathNode:
        if len(name) > NAME_MAX and is_too_long(name):
            raise NameTooLong(f"a name of {len(name)} bytes; {NAME_MAX} are allowed")
        found = self._tree.lookup(parent.node, name)
        anchor = self._anchor(found, parent.anchor, self._known(path))
        return self._keep(path, PathNode(found, anchor, parent, gone=self._gone))

    def _anchor(self, found: FoundEntry | ListedEntry, above: Anchor | None, before: PathNode | None) -> Anchor | None:
        """Return the anchor of a newly found node; a name with the same meaning as before keeps its own, renewed."""
        if math.isinf(found.valid_s):
            return above
        expires = self._clock() + found.valid_s
        old = before.anchor if before is not None and before.node == found.node and before.moves else None
        if old is not None and old.above is above:
            old.expires = expires
            return old
        return Anchor(expires, above)

    def _known(self, path: bytes) -> PathNode | None:
        with self._lock:
            return self._path_nodes.get(path)

    def _valid(self, path: bytes) -> PathNode | None:
        """Return the remembered node of *path*, if it is still valid."""
        path_node = self._known(path)
        return path_node if path_node is None or path_node.anchor is None or self._holds(path_node.anchor) else None

    def _keep(self, path: bytes, path_node: PathNode) -> PathNode:
        with self._lock:
            self._path_nodes[path] = path_node
        self._forget_gone()
        return path_node

    def _forget_gone(self) -> None:
        while True:
            try:
                node = self._gone.popleft()
            except IndexError:
                return
            self._tree.forget(node, 1)

    def _holds(self, anchor: Anchor | None) -> bool:
        now = self._clock()
        while anchor is not None:
            if anchor.uses:
                return True
            if anchor.expires <= now:
                return False
            anchor = anchor.above
        return True
