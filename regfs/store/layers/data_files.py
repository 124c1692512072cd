"""The data files of layers that are read from: each is open once, and closed when others need its place.

Thread rule: any thread; two may open a data file at once, and both are right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from regfs.model.digest import Digest
from regfs.store.files.cached_files import open_file
from regfs.store.tables.open_tables import OpenTables


class DataFile:
    """An open data file. It is closed when nothing refers to it any more: neither DataFiles nor a file open in it."""

    __slots__ = ("__weakref__", "_let_go", "fd", "recent", "size")

    def __init__(self, path: Path, let_go: Callable[[], object] = lambda: None) -> None:
        """Raises OSError. *let_go* drops the reference that DataFiles has."""
        self.fd = -1
        self.recent = True
        self._let_go = let_go
        self.fd = open_file(path)
        self.size = os.fstat(self.fd).st_size

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def close_if_idle(self) -> bool:
        """Let it be closed as soon as no file is open in it."""
        self._let_go()
        return True


class DataFiles:
    """The data files of layers; *path_of* tells where one is."""

    def __init__(self, path_of: Callable[[Digest], Path], tables: OpenTables) -> None:
        self._path_of = path_of
        self._tables = tables
        self._open: dict[Digest, DataFile] = {}

    def find(self, layer: Digest) -> DataFile | None:
        """Return the data file of *layer* if it is open."""
        file = self._open.get(layer)
        if file is not None:
            file.recent = True
        return file

    def open(self, layer: Digest) -> DataFile:
        """Return the data file of *layer*, opened. Raises OSError."""
        files = self._open
        file = files.setdefault(layer, DataFile(self._path_of(layer), lambda: files.pop(layer, None)))
        self._tables.add(file, descriptors=1)
        return file

    def drop(self, layer: Digest) -> None:
        """Let go of the data file of *layer*, if it is open: it is removed, and an open one keeps its room taken."""
        self._open.pop(layer, None)

    def clear(self) -> None:
        """Let go of all."""
        self._open.clear()
