"""RegistryPath: registries for universal_pathlib: `UPath("regfs://ghcr.io/org/app:1.2/rootfs/etc/os-release")`.

Found by universal_pathlib through an entry point; nothing of regfs imports this module. It reads through
fsspec_filesystem.py; methods that write raise UnsupportedOperation, as in universal_pathlib's other read-only paths.
Values; any thread.
"""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

from upath import UnsupportedOperation, UPath

from regfs.library.fsspec_filesystem import RegistryFileSystem


class RegistryPath(UPath):
    """A path below a mount point, as `regfs://…`. It knows symbolic links, which UPath does not."""

    __slots__ = ()

    # For a protocol that it does not know, UPath lets parent paths begin with a slash, and then cuts names.
    parser = type(UPath.parser)(RegistryFileSystem)  # type: ignore[call-arg]

    @property
    def path(self) -> str:
        """The path below a mount point, without a slash in front: '' for the mount point itself."""
        found = str(super().path)
        return "" if found in ("/", ".") else found

    @property
    def parts(self) -> tuple[str, ...]:
        """The components of the path."""
        return tuple(part for part in super().parts if part != "/")

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        try:
            return bool(self.fs.info(self.path)["islink"])
        except FileNotFoundError:
            return False

    def readlink(self) -> Any:
        """Return where a symbolic link leads from the directory that it is in. An absolute target begins at rootfs/."""
        destination = self.fs.info(self.path).get("destination")
        if destination is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.path)
        return self.parent.joinpath(destination) if not destination.startswith("/") else self._at_root(destination)

    def mkdir(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise UnsupportedOperation: registries are shown, not written."""
        self._refuse("mkdir")

    def touch(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise UnsupportedOperation."""
        self._refuse("touch")

    def unlink(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise UnsupportedOperation."""
        self._refuse("unlink")

    def write_bytes(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise UnsupportedOperation."""
        self._refuse("write_bytes")

    def write_text(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise UnsupportedOperation."""
        self._refuse("write_text")

    def _refuse(self, operation: str) -> NoReturn:
        raise UnsupportedOperation(f"{operation}: {self} is in a registry, which is shown and not written")

    def _at_root(self, target: str) -> RegistryPath:
        head, rootfs, _ = f"{self.path}/".partition("/rootfs/")
        return self.with_segments(f"{head}{rootfs}", target.lstrip("/"))
