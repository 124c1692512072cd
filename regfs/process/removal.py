"""Removes directories of any depth: those of an image may be nested deeper than shutil.rmtree and a path can follow.

Used by verbs/get.py, cp.py and unpack.py for what a failure left half-written. One thread; blocks on the disk.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """Yield a new directory `.regfs-…` in *parent*, which is removed at the end of the block. Raises OSError."""
    made = tempfile.mkdtemp(prefix=".regfs-", dir=parent)
    try:
        yield Path(made)
    finally:
        remove_tree(made)


def remove_tree(top: str) -> None:
    """Remove the directory *top* and everything in it. Raises OSError.

    Each directory below is moved into *top* before it is emptied: neither the stack, nor descriptors, nor the length
    of a path grow with the depth. No link is followed.
    """
    at_top = os.open(top, _DIRECTORY)
    try:
        waiting = _empty(at_top, at_top)
        while waiting:
            name = waiting.pop()
            directory = os.open(name, _DIRECTORY, dir_fd=at_top)
            try:
                waiting += _empty(directory, at_top)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=at_top)
    finally:
        os.close(at_top)
    os.rmdir(top)


def clear_directory(top: Path) -> None:
    """Remove everything in the directory *top*, which stays. Raises OSError."""
    with os.scandir(top) as found:
        entries = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in found]
    for path, is_directory in entries:
        if is_directory:
            os.chmod(path, 0o700)  # an image's may be closed to its owner
            remove_tree(path)
        else:
            os.unlink(path)


def _empty(directory: int, top: int) -> list[str]:
    """Remove what is in *directory*, and move the directories in it to *top*; return their new names there."""
    moved = []
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        os.chmod(name, 0o700, dir_fd=directory)  # an image's may be closed to its owner
        moved.append(secrets.token_hex(16))
        os.rename(name, moved[-1], src_dir_fd=directory, dst_dir_fd=top)
    return moved
