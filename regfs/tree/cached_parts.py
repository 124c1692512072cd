"""`.regfs/cache/`: what the cache holds, and what keeps each part from eviction.

    .regfs/cache/
    ├── images/3fa9c0d1e2b4          name, size, last use (also the file's date), layers, holders, parts
    ├── layers/<diff id>             size, last use, holders, its images
    ├── tables/<chain id>            the same for a merged table
    └── blobs/<digest>               the same for a document or a blob as it was sent

A part is held while it is `open` in a mount or a verb, `mounted` by the kernel, or `pinned`. rm evicts a part that is
not held, as `regfs cache rm` does, and fails with EBUSY where it is held. The user who mounts owns all of this, so that
others may not. All files are computed together, at most every two seconds, and never for more than a tenth of the time.
Used by app/control.py. Any thread; no network.
"""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import NotFound, WouldBlock
from regfs.model.attributes import Attributes
from regfs.process.waiting.deadline import current
from regfs.tree.control import KEY
from regfs.tree.node import (
    FOREVER,
    Child,
    Found,
    Live,
    OpenBytes,
    OpenFile,
    children_of,
    directory_attributes,
)

if TYPE_CHECKING:
    from regfs.images.holdings import Held, Holdings

NAME = "cache"
_KINDS = ("images", "layers", "tables", "blobs")
# As ls and rm expect it where something can be removed: rm asks before it removes what its user may not write.
_DIRECTORY_MODE = stat.S_IFDIR | 0o755
_FILE_MODE = stat.S_IFREG | 0o644
_FRESH_S = 2.0
_SHARE = 10


Evict = Callable[[str, str], Collection[Path]]
"""Evicts the part of a kind and a name from the cache, and returns what is gone (Held.guard). Raises NotFound, InUse,
CacheFailure."""


class Ids(NamedTuple):
    """The ids of a user and a group."""

    uid: int
    gid: int


class _Known:
    """Caches the holdings for some seconds. *find* computes them by a walk over the cache."""

    def __init__(self, find: Callable[[], Holdings]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._known: Holdings | None = None
        self._until = 0.0

    def now(self) -> Holdings:
        """Return the holdings; one thread at a time computes them. Raises WouldBlock, CacheFailure."""
        known = self._known
        if known is not None and time.monotonic() < self._until:
            return known
        if not current().may_wait:
            raise WouldBlock("what the cache holds is computed when it is read")
        with self._lock:
            began = time.monotonic()
            if self._known is None or began >= self._until:
                self._known = self._find()
                took_s = time.monotonic() - began
                self._until = began + took_s + max(_FRESH_S, _SHARE * took_s)
            return self._known

    def drop(self, guards: Collection[Path]) -> None:
        """Show what has these *guards* no longer."""
        with self._lock:  # what is being computed now may be older
            if self._known is not None:
                self._known = self._known.without(guards)


class CachedParts:
    """The directory `.regfs/cache/`. *find* computes the holdings by a walk over the cache; *owner* may evict."""

    def __init__(self, find: Callable[[], Holdings], evict: Evict, owner: Ids) -> None:
        self.key = f"{KEY}/{NAME}"
        known = _Known(find)
        self._kinds = {kind: _Kind(f"{self.key}/{kind}", kind, owner, known, evict) for kind in _KINDS}

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return the directory of one kind of parts: `images`, `layers`, `tables` or `blobs`."""
        if name not in self._kinds:
            raise NotFound(f"{self.key} has no {name[:300]!r}; it has {', '.join(_KINDS)}")
        return Found(self._kinds[name], FOREVER)

    def children(self) -> list[Child]:
        """Return the directories of all kinds."""
        return children_of(self.key, dict.fromkeys(_KINDS, _DIRECTORY_MODE))


@dataclass(frozen=True, slots=True)
class _Kind:
    """The directory of one kind of parts."""

    key: str
    kind: str
    owner: Ids
    known: _Known = field(compare=False)
    evict_part: Evict = field(compare=False)

    def attributes(self) -> Attributes:
        return directory_attributes()._replace(mode=_DIRECTORY_MODE, uid=self.owner.uid, gid=self.owner.gid)

    def lookup(self, name: str) -> Found:
        if name not in self.parts():
            raise NotFound(f"{self.key} has no {name[:300]!r}")
        return Found(_Part(f"{self.key}/{name}", name, self), 0.0)

    def children(self) -> list[Child]:
        return children_of(self.key, dict.fromkeys(self.parts(), _FILE_MODE))

    def evict(self, name: str) -> None:
        """See Evicting."""
        self.known.drop(self.evict_part(self.kind, name))

    def parts(self) -> Mapping[str, Held]:
        parts: Mapping[str, Held] = getattr(self.known.now(), self.kind)
        return parts


@dataclass(frozen=True, slots=True)
class _Part(Live):
    """The file that describes one part; its date is the part's last use."""

    key: str
    name: str
    kind: _Kind = field(compare=False)

    def attributes(self) -> Attributes:
        held = self._held()
        size, owner = len(held.text.encode()), self.kind.owner
        return Attributes(_FILE_MODE, size, uid=owner.uid, gid=owner.gid, mtime_ns=held.used_ns)

    def open(self) -> OpenFile:
        return OpenBytes(self._held().text.encode(), keep_cache=False)

    def _held(self) -> Held:
        held = self.kind.parts().get(self.name)
        if held is None:
            raise NotFound(f"{self.key} was evicted")
        return held
