"""Finds the paths below a directory of the tree that match a glob pattern. Used by path.py (Path.glob). Any thread.

Patterns are those of pathlib: `*`, `?` and `[…]` within a component, which match names that begin with a dot too, and
`**` for any number of directories, the one at its place included.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

from regfs.errors import InvalidName, LinkLoop, RegfsError
from regfs.library.failures import as_os_error
from regfs.library.path_resolver import Files, Names

_MAGIC_RE = re.compile(rb"[*?[]")
_T = TypeVar("_T")
_ANY_DEPTH = b"**"


def components(pattern: str | os.PathLike[str]) -> Names:
    """Return the components of *pattern*. Raises InvalidName for an empty or absolute one."""
    raw = os.fsencode(pattern)
    parts = tuple(part for part in raw.split(b"/") if part not in (b"", b"."))
    if not parts or raw.startswith(b"/") or b"\0" in raw or b".." in parts:
        raise as_os_error(InvalidName(f"{os.fsdecode(raw)!r} is not a pattern: a relative path without .. is needed"))
    return parts


def matching(files: Files, top: Names, parts: Names) -> Iterator[Names]:
    """Yield each path below *top* that *parts*, from components(), match, once; a directory before what is in it.

    A name without wildcards is looked up, so names that no listing has match, too. `**` follows no links; other
    components do. A pattern that ends with `**` matches files too, as since Python 3.13. Blocks on the network.
    """
    found = _matching(files, top, parts)
    if parts.count(_ANY_DEPTH) < 2:  # then each path matches in one way only
        return found
    return iter(dict.fromkeys(found))


def _matching(files: Files, at: Names, parts: Names) -> Iterator[Names]:
    if not parts:
        yield at
        return
    first, rest = parts[0], parts[1:]
    if first == _ANY_DEPTH:
        yield from _at_any_depth(files, at, rest)
    elif _MAGIC_RE.search(first) is None:
        below = (*at, first)
        if _exists(files, below):
            yield from _matching(files, below, rest)
    else:
        matches = re.compile(fnmatch.translate(os.fsdecode(first))).match
        for name, _ in _listed(files, at):
            if matches(os.fsdecode(name)):
                yield from _matching(files, (*at, name), rest)


def _at_any_depth(files: Files, top: Names, rest: Names) -> Iterator[Names]:
    waiting = [top]
    while waiting:
        at = waiting.pop()
        yield from _matching(files, at, rest)
        entries = _listed(files, at)
        if not rest:
            yield from ((*at, name) for name, kind in entries if kind != stat.S_IFDIR)
        waiting += [(*at, name) for name, kind in reversed(entries) if kind == stat.S_IFDIR]


def _exists(files: Files, names: Names) -> bool:
    return bool(_unless_missing(lambda: [files.entry(names, follow=False)]))


def _listed(files: Files, names: Names) -> list[tuple[bytes, int]]:
    """Return the entries of the directory *names*; empty if it is not a directory."""
    return _unless_missing(lambda: files.children(names))


def _unless_missing(question: Callable[[], list[_T]]) -> list[_T]:
    try:
        return question()
    except RegfsError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | LinkLoop):
            return []
        raise
