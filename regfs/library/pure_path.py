"""PurePath: the name of a file or directory of the tree, with the methods of pathlib.PurePath; none asks the tree.

Used by path.py, whose Path adds what asks. Values; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import total_ordering
from pathlib import PurePosixPath
from typing import Self

from regfs.errors import InvalidName
from regfs.library.failures import as_os_error
from regfs.library.path_resolver import Files, Names


@total_ordering
class PurePath:
    """A path of the tree. *names* lead to it from the root of a mount; str() leaves the first *anchor* of them out.

    `image.rootfs / "etc/os-release"` has the name `etc/os-release` in its image, which str() returns with a slash in
    front. All paths are absolute: they begin at their anchor.
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
    def suffixes(self) -> list[str]:
        """The suffixes of the last component: `['.tar', '.gz']`."""
        return PurePosixPath(self.name).suffixes

    @property
    def stem(self) -> str:
        """The last component without its suffix."""
        return os.path.splitext(self.name)[0]

    @property
    def parent(self) -> Self:
        """The path without its last component; the anchor is its own parent."""
        return self if len(self._names) <= self._anchor else self._at(self._names[:-1])

    @property
    def parents(self) -> Sequence[Self]:
        """The paths of the directories above, the nearest first, up to the anchor."""
        return [self._at(self._names[:length]) for length in range(len(self._names) - 1, self._anchor - 1, -1)]

    def joinpath(self, *paths: str | bytes | os.PathLike[str]) -> Self:
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

    def below(self, name: str) -> Self:
        """Return the entry *name* as a path that str() shows as `/`, and that is its own parent."""
        names = self.joinpath(name)._names
        return type(self)(self._files, names, anchor=len(names))

    def with_name(self, name: str) -> Self:
        """Return the path with another last component. Raises ValueError for the anchor, and for what is no name."""
        if len(self._names) <= self._anchor:
            raise ValueError(f"{self!r} has an empty name")
        if not name or name == "." or "/" in name or "\0" in name:
            raise ValueError(f"invalid name {name!r}")
        return self._at((*self._names[:-1], os.fsencode(name)))

    def with_stem(self, stem: str) -> Self:
        """Return the path with another stem before its suffix. Raises ValueError as with_name() does."""
        return self.with_name(stem + self.suffix)

    def with_suffix(self, suffix: str) -> Self:
        """Return the path with *suffix* (`.gz`, or '' for none) in its suffix's place. Raises ValueError."""
        if suffix == "." or (suffix and not suffix.startswith(".")):
            raise ValueError(f"invalid suffix {suffix!r}")
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: Self | str) -> PurePosixPath:
        """Return what leads here from *other*, which `other / …` and a local directory take. Raises ValueError.

        *other* is a path of the same client, or a text as str() returns it.
        """
        above = self._other(other)
        if not self.is_relative_to(above):
            raise ValueError(f"{self!r} is not in the subpath of {above!r}")
        return PurePosixPath(*map(os.fsdecode, self._names[len(above._names) :]))

    def is_relative_to(self, other: Self | str) -> bool:
        """Tell whether *other* is the path itself or one above it. Links and `..` are not looked at."""
        above = self._other(other)
        return above._files is self._files and self._names[: len(above._names)] == above._names

    def match(self, pattern: str) -> bool:
        """Tell whether the path below the anchor matches a pattern as pathlib's match() has them: `*.conf`, `/etc/*`.

        A relative pattern is matched from the right.
        """
        return PurePosixPath(str(self)).match(pattern)

    def is_absolute(self) -> bool:
        """Return True: a path begins at its anchor, never at a working directory."""
        return True

    def as_posix(self) -> str:
        """Return str(path)."""
        return str(self)

    def __truediv__(self, path: str | bytes | os.PathLike[str]) -> Self:
        """Return joinpath(path)."""
        return self.joinpath(path)

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
        if not isinstance(other, PurePath):
            return NotImplemented
        return self._names == other._names and self._files is other._files

    def __lt__(self, other: PurePath) -> bool:
        """Tell whether this path comes before *other* by name."""
        return self._names < other._names if isinstance(other, PurePath) else NotImplemented

    def __hash__(self) -> int:
        """Return a hash of the path."""
        return hash((self._names, id(self._files)))

    def _at(self, names: Names) -> Self:
        return type(self)(self._files, names, anchor=self._anchor)

    def _other(self, path: Self | str) -> Self:
        """Return *path*; a text begins at the anchor, as str() shows it."""
        return self._at(self._names[: self._anchor]).joinpath(path) if isinstance(path, str) else path
