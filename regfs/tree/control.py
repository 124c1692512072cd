"""`.regfs/`: files about the daemon and the mount.

    .regfs/
    ├── version        the version of regfs that serves this mount
    ├── daemon.json    its process, driver, platform, log and cache (self_description.py)
    ├── stats.json     counters: requests, bytes, ingests, hits …
    ├── metrics        the same, for Prometheus
    ├── fetching.json  the layers that are being received and unpacked now (`regfs status` reads it)
    ├── errors         recent failures with their reasons, one line each
    ├── requests       recent requests to registries, one line each
    ├── cache/         what the cache holds (cached_parts.py)
    └── history/       what tags pointed to (tag_history.py)

Each text is made when its file is opened: no network, and no lock of another package. Used by root.py. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from regfs.errors import NotFound
from regfs.model.attributes import Attributes
from regfs.tree.node import (
    DIRECTORY_MODE,
    FILE_MODE,
    FOREVER,
    Child,
    Directory,
    Found,
    Live,
    OpenBytes,
    OpenFile,
    children_of,
    directory_attributes,
)

KEY = ".regfs"


@dataclass(frozen=True, slots=True)
class ControlDirectory:
    """The directory `.regfs/`. *texts* has for each file the function that makes its content."""

    texts: Mapping[str, Callable[[], str]]
    directories: Mapping[str, Directory] = field(default_factory=dict)
    key: str = KEY
    _files: dict[str, LiveFile] = field(default_factory=dict, compare=False)

    def attributes(self) -> Attributes:
        """Return a directory's attributes."""
        return directory_attributes()

    def lookup(self, name: str) -> Found:
        """Return one of the files or directories."""
        if name in self.directories:
            return Found(self.directories[name], FOREVER)
        make = self.texts.get(name)
        if make is None:
            raise NotFound(f"{KEY} has no {name[:300]!r}; it has {', '.join((*self.texts, *self.directories))}")
        return Found(self._files.setdefault(name, LiveFile(f"{KEY}/{name}", make)), 0.0)

    def children(self) -> list[Child]:
        """Return the names."""
        modes = dict.fromkeys(self.texts, FILE_MODE) | dict.fromkeys(self.directories, DIRECTORY_MODE)
        return children_of(KEY, modes)


class LiveFile(Live):
    """A file whose text is made each time that the kernel asks for its size.

    The kernel asks for the size first and then reads that many bytes. So open() returns the text whose size was
    returned last, and no reader gets parts of two texts.
    """

    def __init__(self, key: str, make: Callable[[], str]) -> None:
        self.key = key
        self._make = make
        self._told = b""

    def attributes(self) -> Attributes:
        """Return the file's attributes, its size as of now."""
        self._told = self._make().encode("utf-8", "replace")
        return Attributes(FILE_MODE, len(self._told))

    def open(self) -> OpenFile:
        """Return the text that the last attributes() measured; a new text if another daemon measured it."""
        if not self._told:
            self.attributes()
        return OpenBytes(self._told, keep_cache=False)
