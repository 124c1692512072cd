"""`.regfs/history/`: what tags pointed to, as far as regfs has seen it in answers of registries.

    .regfs/history/docker.io/library/debian/12      a line for each move, the oldest first:

    2026-11-03T10:00:00Z sha256:… sha256:… 2026-11-02T08:00:00Z

A line has four fields: when the move was seen; the old digest; the new one (`-`: no such tag, or unknown); and when the
old one was last seen. The tag moved between the two times. Names of the default registry open without it too:
.regfs/history/library/debian/12. A name that is a tag and also leads to a repository means the tag. Used by
app/composition.py. Any thread; no network.
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
    """The directory of *path*: a registry and leading components of repositories; () is `.regfs/history` itself.

    *is_short*: it was found without the name of its registry, the default one.
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
        """Return the file with a tag's moves, or a directory on the way to tags."""
        if name in self._tags():
            return Found(LiveFile(f"{self.key}/{name}", lambda: self._text(name)), 0.0)
        if name in self._below():
            return Found(replace(self, path=(*self.path, name)), 0.0)
        if not self.path:
            return replace(self, path=(self.default_registry,), is_short=True).lookup(name)
        raise NotFound(f"{self.key} has no {name[:300]!r}: no tag of that name was looked up")

    def children(self) -> list[Child]:
        """Return the tags, and the directories on the way to others."""
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
