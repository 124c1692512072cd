"""`.regfs/history/`: what tags pointed to, as far as the registries' answers have shown it.

    .regfs/history/docker.io/library/debian/12      a line for each move, the oldest first:

    2026-11-03T10:00:00Z sha256:… sha256:… 2026-11-02T08:00:00Z

When the move was seen, from what, to what (`-`: no such tag, or nothing known), and when the former was seen last: the
tag moved between the two times. Names of the default registry open without it too: .regfs/history/library/debian/12.
Where a name is a tag and leads to a repository too, it is the tag. Used by
composition. Any thread; no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from regfs.errors import InvalidName, NotFound
from regfs.model.attributes import Attributes
from regfs.model.dates import moment_text
from regfs.model.names import RepositoryName
from regfs.store.references.tag_history import Move, TagHistory
from regfs.tree.control import KEY, LiveFile
from regfs.tree.node import DIRECTORY_MODE, FILE_MODE, Child, Found, children_of, directory_attributes

NAME = "history"


@dataclass(frozen=True, slots=True)
class HistoryDirectory:
    """The directory of *path*: a registry and the beginning of repositories' paths; () is the top.

    *is_short*: it was found without the name of the registry, which is the default one.
    """

    history: TagHistory
    default_registry: str
    path: tuple[str, ...] = ()
    is_short: bool = False

    @property
    def key(self) -> str:
        """Its path in the mount."""
        return "/".join((KEY, NAME, *self.path[self.is_short :]))

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return the moves of a tag, or a directory that leads to some."""
        if name in self._tags():
            return Found(LiveFile(f"{self.key}/{name}", lambda: self._text(name)), 0.0)
        if name in self._below():
            return Found(replace(self, path=(*self.path, name)), 0.0)
        if not self.path:
            return replace(self, path=(self.default_registry,), is_short=True).lookup(name)
        raise NotFound(f"{self.key} has no {name[:300]!r}: no tag of that name was looked up")

    def children(self) -> list[Child]:
        """Return tags, and what leads to others."""
        modes = dict.fromkeys(self._below(), DIRECTORY_MODE) | dict.fromkeys(self._tags(), FILE_MODE)
        return children_of(self.key, dict(sorted(modes.items())))

    def _tags(self) -> list[str]:
        return self.history.tags(self.path[0], "/".join(self.path[1:])) if len(self.path) > 1 else []

    def _below(self) -> set[str]:
        depth, found = len(self.path), set()
        for registry, path in self.history.repositories():
            names = (registry, *path.split("/"))
            if names[:depth] == self.path and len(names) > depth:
                found.add(names[depth])
        return found

    def _text(self, tag: str) -> str:
        try:
            repository = RepositoryName(self.path[0], "/".join(self.path[1:]))
        except InvalidName:  # a damaged file
            return ""
        return "".join(_lines(self.history.moves(repository, tag)))


def _lines(moves: list[Move]) -> Iterator[str]:
    for move in moves:
        was_seen = moment_text(move.was_seen) if move.was_seen else "-"
        yield f"{moment_text(move.seen)} {move.was or '-'} {move.digest or '-'} {was_seen}\n"
