"""Path: a file or directory of the tree, with the methods of pathlib.Path that read.

It is a Traversable (importlib.resources.abc), so programs that read package resources can read images. It is no
os.PathLike: only local_path() gives a local path. Values; any thread.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
from collections.abc import Iterator, Mapping
from functools import total_ordering
from typing import IO, Any, Literal, overload

from regfs.errors import InvalidName, IsADirectory, RegfsError, Unsupported
from regfs.library.failures import as_os_error
from regfs.library.path_glob import components, matching
from regfs.library.path_resolver import Entry, Files, Names
from regfs.library.streams import BUFFER, RawFile

_S = 1_000_000_000
_MODES = ("r", "rt", "tr", "rb", "br")


@total_ordering
class Path:
    """A path of the tree. *names* lead to it from the root of a mount; str() leaves the first *anchor* of them out.

    `image.rootfs / "etc/os-release"` has the name `etc/os-release` in its image, which str() returns with a slash in
    front. Each method asks the tree again. What is below an image's digest never changes. Methods may block on the
    network, and raise OSErrors that are RegfsErrors too.
    """

    __slots__ = ("_anchor", "_files", "_names")

    def __init__(self, files: Files, names: Names = (), *, anchor: int = 0) -> None:
        self._files = files
        self._names = names
        self._anchor = anchor

    @property
    def name(self) -> str:
        """The last component; for the anchor, the name of the image's directory."""
        return os.fsdecode(self._names[-1]) if self._names else ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The components below the anchor."""
        return tuple(map(os.fsdecode, self._names[self._anchor :]))

    @property
    def suffix(self) -> str:
        """The last component from its last dot on; '' if it has none."""
        return os.path.splitext(self.name)[1]

    @property
    def stem(self) -> str:
        """The last component without its suffix."""
        return os.path.splitext(self.name)[0]

    @property
    def parent(self) -> Path:
        """The path without its last component; the anchor is its own parent."""
        return self if len(self._names) <= self._anchor else self._at(self._names[:-1])

    def joinpath(self, *paths: str | bytes | os.PathLike[str]) -> Path:
        """Return the path that *paths* lead to from here; an absolute one begins at the anchor, and stays below it."""
        names = self._names
        for path in paths:
            raw = os.fsencode(path)
            if b"\0" in raw:
                raise as_os_error(InvalidName("a path has no NUL byte"))
            if raw.startswith(b"/"):
                names = names[: self._anchor]
            names += tuple(name for name in raw.split(b"/") if name not in (b"", b"."))
        return self._at(names)

    def below(self, name: str) -> Path:
        """Return the entry *name* as a path that str() shows as `/`, and that is its own parent."""
        names = self.joinpath(name)._names
        return Path(self._files, names, anchor=len(names))

    def __truediv__(self, path: str | bytes | os.PathLike[str]) -> Path:
        """Return joinpath(path)."""
        return self.joinpath(path)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it exists. False is a definite answer: a failing registry raises."""
        return self._mode(follow=follow_symlinks) != 0

    def is_dir(self) -> bool:
        """Whether it is a directory, or a link to one."""
        return stat.S_ISDIR(self._mode())

    def is_file(self) -> bool:
        """Whether it is a regular file, or a link to one."""
        return stat.S_ISREG(self._mode())

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self._mode(follow=False))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what stat(2) would in a mount; st_dev is 0."""
        return _stat_result(self._files.entry(self._names, follow=follow_symlinks))

    def lstat(self) -> os.stat_result:
        """Return what lstat(2) would: for a link, of the link itself."""
        return self.stat(follow_symlinks=False)

    def readlink(self) -> str:
        """Return the target of a symbolic link, as it is stored."""
        return os.fsdecode(self._files.read_link(self._names))

    def xattrs(self, *, follow_symlinks: bool = True) -> Mapping[str, bytes]:
        """Return the extended attributes by name."""
        found = self._files.xattrs(self._names, follow=follow_symlinks)
        return {os.fsdecode(name): value for name, value in found.items()}

    def iterdir(self) -> Iterator[Path]:
        """Yield what a listing of the directory shows."""
        for name, _ in self._files.children(self._names):
            yield self._at((*self._names, name))

    def walk(self) -> Iterator[tuple[Path, list[str], list[str]]]:
        """Yield each directory from here down with the names of its directories and of its other entries.

        Links are not followed. As with os.walk(), a name that is removed from the first list is not entered.
        """
        waiting = [self]
        while waiting:
            at = waiting.pop()
            directories: list[str] = []
            others: list[str] = []
            for name, kind in self._files.children(at._names):
                (directories if kind == stat.S_IFDIR else others).append(os.fsdecode(name))
            yield at, directories, others
            waiting += [at / name for name in reversed(directories)]

    def glob(self, pattern: str | os.PathLike[str]) -> Iterator[Path]:
        """Yield each path below the directory that the relative *pattern* matches, as pathlib's does: `**/*.conf`."""
        return map(self._at, matching(self._files, self._names, components(pattern)))

    def rglob(self, pattern: str | os.PathLike[str]) -> Iterator[Path]:
        """Yield what glob() yields for *pattern* in the directory and in each one below it."""
        return map(self._at, matching(self._files, self._names, (b"**", *components(pattern))))

    @overload
    def open(
        self, mode: Literal["r", "rt", "tr"] = "r", *, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...  # fmt: skip

    @overload
    def open(self, mode: Literal["rb", "br"]) -> io.BufferedReader: ...

    @overload
    def open(
        self, mode: str = "r", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> IO[Any]: ...

    def open(
        self, mode: str = "r", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> IO[Any]:
        """Open the file for reading. Its bytes are fetched as they are read, where the format of its layer allows."""
        if mode not in _MODES:
            raise ValueError(f"invalid mode: {mode!r}; registries are read, and not written")
        found = self._files.entry(self._names).attributes
        if not stat.S_ISREG(found.mode):
            raise as_os_error(self._no_file(found.mode))
        size = found.size
        raw = RawFile(self._files, self._files.open(self._names), size=size, name=str(self))
        buffered = io.BufferedReader(raw, BUFFER)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """Return all bytes of the file."""
        with self.open("rb") as file:
            return file.read()

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return all of the file as text, UTF-8 unless *encoding* is given."""
        with self.open(encoding=encoding, errors=errors) as file:
            return file.read()

    def local_path(self) -> str:
        """Return the path of a file of the cache with exactly these bytes, for mmap and for programs that want a path.

        Blobs and unpacked files of artifacts have such a path. The whole file is fetched. It is read only, and stays
        while the client is open and the cache has room. Raises Unsupported if the bytes are a part of a larger file, as
        those of layers are.
        """
        file = self._files.open(self._names)
        try:
            descriptor = file.backing_fd()
            if descriptor is None:
                raise as_os_error(
                    Unsupported(f"{self} has no file of its own in the cache; open() reads it, and a copy has a path")
                )
            return os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            file.close()

    def __fspath__(self) -> str:
        """Raise TypeError: there is no local path."""
        raise TypeError(f"{self} is in a registry, and has no path here; open() reads it, local_path() may give one")

    def __str__(self) -> str:
        """Return the path below its anchor, with a slash in front."""
        return "/" + "/".join(self.parts)

    def __repr__(self) -> str:
        """Return the whole path, from the root of a mount."""
        return f"regfs.Path({'/'.join(map(os.fsdecode, self._names))!r})"

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same path of the same client."""
        if not isinstance(other, Path):
            return NotImplemented
        return self._names == other._names and self._files is other._files

    def __lt__(self, other: Path) -> bool:
        """Tell whether this path comes before *other* by name."""
        return self._names < other._names if isinstance(other, Path) else NotImplemented

    def __hash__(self) -> int:
        """Return a hash of the path."""
        return hash((self._names, id(self._files)))

    def _no_file(self, mode: int) -> RegfsError:
        if stat.S_ISDIR(mode):
            return IsADirectory(f"{self} is a directory")
        return Unsupported(f"{self} is a device or a pipe, which has no bytes in an image")

    def _at(self, names: Names) -> Path:
        return Path(self._files, names, anchor=self._anchor)

    def _mode(self, *, follow: bool = True) -> int:
        """Return the mode; 0 if the path definitely does not exist."""
        try:
            return self._files.entry(self._names, follow=follow).attributes.mode
        except RegfsError as error:
            if isinstance(error, builtins.FileNotFoundError | builtins.NotADirectoryError):
                return 0
            raise


def _stat_result(entry: Entry) -> os.stat_result:
    at = entry.attributes
    times = (at.mtime_ns,) * 3  # a layer keeps one time
    return os.stat_result(
        (
            at.mode, entry.inode, 0, at.nlink, at.uid, at.gid, at.size,
            *(time // _S for time in times), *(time / _S for time in times), *times,
            4096, (at.size + 511) // 512, at.rdev,
        )
    )  # fmt: skip
