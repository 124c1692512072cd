"""`regfs ls`: lists a directory of an image, without a mount."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from regfs.app.config import Config
from regfs.library.path import Path
from regfs.verbs.image_paths import opened_paths


class Entry(NamedTuple):
    """One file or directory: its *path* in the image, its *name* as it is shown, and what stat(2) says."""

    path: str
    name: str
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: str | None


class Listed(NamedTuple):
    """What one argument names, as it was *typed*: a directory's entries by name, or one other file."""

    typed: str
    is_directory: bool
    entries: tuple[Entry, ...]


def ls(
    texts: Sequence[str], *, config: Config, environment: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Listed]:
    """Yield what each of *texts*, IMAGE[:/PATH], shows. Blocks on the network; raises RegfsErrors."""
    with opened_paths(texts, config=config, environment=environment, say=say) as opened:
        for typed, (_, path) in zip(texts, opened, strict=True):
            if path.is_dir():
                entries = tuple(entry_of(each, each.name) for each in sorted(path.iterdir()))
                yield Listed(typed, is_directory=True, entries=entries)
            else:
                yield Listed(typed, is_directory=False, entries=(entry_of(path, str(path)),))


def entry_of(path: Path, name: str) -> Entry:
    """Return what is at *path*, shown as *name*. Symbolic links are not followed. Raises RegfsErrors."""
    status = path.lstat()
    target = path.readlink() if stat.S_ISLNK(status.st_mode) else None
    return Entry(
        str(path), name, status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_size,
        status.st_mtime_ns, target,
    )  # fmt: skip
