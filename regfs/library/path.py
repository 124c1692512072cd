"""Path: a file or directory of the tree, with the methods of pathlib.Path that read. Three differ a little:

- relative_to() returns a pathlib.PurePosixPath, because a Path is always absolute;
- walk() raises where a directory cannot be listed, unless *on_error* takes the error: pathlib would leave it out;
- resolve() raises for links that form a loop, *strict* or not, as pathlib did before Python 3.13.

There is none for the names of owners and groups, which are numbers in an image, and none that writes. A Path is a
Traversable (importlib.resources.abc), so programs that read package resources can read images. It is no os.PathLike:
only local_path() gives a local path. Values; any thread.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Literal, Self, overload

from regfs.errors import IsADirectory, LinkLoop, RegfsError, Unsupported
from regfs.library.failures import as_os_error
from regfs.library.path_glob import components, matching
from regfs.library.path_resolver import Entry
from regfs.library.pure_path import PurePath
from regfs.library.streams import BUFFER, RawFile

_S = 1_000_000_000
_MODES = ("r", "rt", "tr", "rb", "br")


class Path(PurePath):
    """A path of the tree, as PurePath has it, and what is there.

    Each method asks the tree. What is below an image's digest never changes. Methods may block on the network, and
    raise OSErrors that are RegfsErrors too.
    """

    __slots__ = ()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it exists. False is a definite answer: a failing registry raises."""
        return self._mode(follow=follow_symlinks) != 0

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory, or a link to one."""
        return stat.S_ISDIR(self._mode(follow=follow_symlinks))

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a link to one."""
        return stat.S_ISREG(self._mode(follow=follow_symlinks))

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

    def resolve(self, strict: bool = False) -> Self:
        """Return the path without links and `..`, as after chroot(2) into its rootfs.

        What does not exist is kept as it is written, unless *strict*: then it raises FileNotFoundError. A path that
        leaves its anchor by `..` gets the root of the mount as its anchor.
        """
        names = self._files.resolved(self._names, strict=strict)
        stays = names[: self._anchor] == self._names[: self._anchor]
        return type(self)(self._files, names, anchor=self._anchor if stays else 0)

    def absolute(self) -> Self:
        """Return the path: it is absolute."""
        return self

    def samefile(self, other: Self | str) -> bool:
        """Tell whether both lead to the same file, by links or hard links too. *other* is as in relative_to()."""
        path = self._other(other)
        return path._files is self._files and path.stat().st_ino == self.stat().st_ino

    def xattrs(self, *, follow_symlinks: bool = True) -> Mapping[str, bytes]:
        """Return the extended attributes by name."""
        found = self._files.xattrs(self._names, follow=follow_symlinks)
        return {os.fsdecode(name): value for name, value in found.items()}

    def iterdir(self) -> Iterator[Self]:
        """Yield what a listing of the directory shows."""
        for name, _ in self._files.children(self._names):
            yield self._at((*self._names, name))

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Iterator[tuple[Self, list[str], list[str]]]:
        """Yield each directory from here down with the names of its directories and of its other entries.

        From the top down, a name that is removed from the first list is not entered. Links to directories are other
        entries, unless *follow_symlinks*; then nothing keeps a walk out of a loop, as in pathlib.
        """
        waiting: list[Self | tuple[Self, list[str], list[str]]] = [self]
        while waiting:
            at = waiting.pop()
            if isinstance(at, tuple):
                yield at
                continue
            try:
                found = (at, *at._children(follow=follow_symlinks))
            except OSError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            if top_down:
                yield found
            else:
                waiting.append(found)
            waiting += [at / name for name in reversed(found[1])]

    def glob(self, pattern: str | os.PathLike[str]) -> Iterator[Self]:
        """Yield each path below the directory that the relative *pattern* matches, as pathlib's does: `**/*.conf`."""
        return map(self._at, matching(self._files, self._names, components(pattern)))

    def rglob(self, pattern: str | os.PathLike[str]) -> Iterator[Self]:
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

    def _children(self, *, follow: bool) -> tuple[list[str], list[str]]:
        """Return the names of the directories here, and of the other entries."""
        directories: list[str] = []
        others: list[str] = []
        for name, kind in self._files.children(self._names):
            is_directory = kind == stat.S_IFDIR or (
                follow and kind == stat.S_IFLNK and self._at((*self._names, name)).is_dir()
            )
            (directories if is_directory else others).append(os.fsdecode(name))
        return directories, others

    def _no_file(self, mode: int) -> RegfsError:
        if stat.S_ISDIR(mode):
            return IsADirectory(f"{self} is a directory")
        return Unsupported(f"{self} is a device or a pipe, which has no bytes in an image")

    def _mode(self, *, follow: bool = True) -> int:
        """Return the mode; 0 if the path definitely leads nowhere."""
        try:
            return self._files.entry(self._names, follow=follow).attributes.mode
        except RegfsError as error:
            if isinstance(error, builtins.FileNotFoundError | builtins.NotADirectoryError | LinkLoop):
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
