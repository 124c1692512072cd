"""RegistryFileSystem: registries for fsspec, and so for pandas, pyarrow, dask, zarr and universal_pathlib.

    regfs://ghcr.io/org/app:1.2/rootfs/etc/os-release      a path as it is below a mount point
    pandas.read_parquet("regfs://ghcr.io/org/data:v1/files/data.parquet")

Found by fsspec through an entry point; nothing of regfs imports this module. The extra `regfs[fsspec]` installs fsspec.
Read only: every attempt to write is EROFS, as fsspec's guide for such file systems has it. fsspec knows neither links
nor owners: info() gives type and size of a link's target, and link and owner in further keys, as fsspec's
LocalFileSystem does. A tag is resolved once, and then means the same image as long as the object lives; fsspec reuses
an object for equal arguments. Thread rule: any thread.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem

from regfs.library.client import Client
from regfs.library.path import Path

_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}


class RegistryFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Registries, read only. *options* are those of Client: platform, offline, cache_dir, timeout_s …"""

    protocol = "regfs"
    root_marker = ""
    cachable = True

    def __init__(self, **options: Any) -> None:
        """Make the file system without a request to a registry."""
        super().__init__(**options)
        own = {name: value for name, value in options.items() if name not in ("skip_instance_cache", "asynchronous")}
        self._client = Client(**own)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what a listing of *path* shows, or the file itself. May block on the network."""
        at = self._path(path)
        entries = sorted(at.iterdir()) if at.is_dir() else [at]
        return [self._info(each) for each in entries] if detail else [_name(each) for each in entries]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, type and size, and what stat(2) says. May block on the network."""
        return self._info(self._path(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether *path* exists. Raises if the registry fails: that is not a missing file."""
        return self._path(path).exists()

    def created(self, path: str) -> datetime:
        """Return the modification time: a layer keeps no other."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """Return the modification time."""
        return datetime.fromtimestamp(self._path(path).stat().st_mtime, tz=UTC)

    def ukey(self, path: str) -> str:
        """Return inode number, size and modification time: together they change if the file's content does."""
        status = self._path(path).stat()
        return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes from *start* to *end*, which may count from the end of the file."""
        with self._path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            first, last = (_position(at, size, default) for at, default in ((start, 0), (end, size)))
            file.seek(first)
            return file.read(max(0, last - first))

    def close(self) -> None:
        """Release the cache."""
        self._client.close()

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BufferedReader:
        if mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return self._path(path).open("rb")

    def mkdir(self, path: str, *_args: Any, **_kwargs: Any) -> None:
        """Raise OSError: registries are shown, not written."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Raise OSError, unless the directory exists and *exist_ok* is set."""
        if not (exist_ok and self._path(path).is_dir()):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def _rm(self, path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def rmdir(self, path: str) -> None:
        """Raise OSError."""
        self._rm(path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Raise OSError."""
        del path1
        self._rm(path2)

    def _path(self, path: str) -> Path:
        return self._client.path(self._strip_protocol(path))

    def _info(self, path: Path) -> dict[str, Any]:
        status = path.lstat()
        found: dict[str, Any] = {"name": _name(path), "islink": stat.S_ISLNK(status.st_mode)}
        if found["islink"]:
            found["destination"] = path.readlink()
            if path.exists():
                status = path.stat()
        found["type"] = _TYPES.get(stat.S_IFMT(status.st_mode), "other")
        found["size"] = status.st_size if found["type"] == "file" else 0
        for name in ("mode", "uid", "gid", "mtime", "ino", "nlink"):
            found[name] = getattr(status, f"st_{name}")
        return found


def _name(path: Path) -> str:
    return "/".join(path.parts)


def _position(at: int | None, size: int, default: int) -> int:
    if at is None:
        return default
    return min(size, at) if at >= 0 else max(0, size + at)
