"""The open data files of layers: each is opened once, and closed when others need its descriptor.

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
    """An open data file, closed when the last reference goes: that of DataFiles, and those of files open in it."""

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
        """Drop the reference that DataFiles has: the data file is closed once no file is open in it."""
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
        """Close the data file of *layer*, which was removed: while open it would keep its room on the disk."""
        self._open.pop(layer, None)

    def clear(self) -> None:
        """Close all."""
        self._open.clear()
