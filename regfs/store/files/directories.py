"""The directories of a cache, below its root; what stands in the place of one is renamed and kept.

A regular file named `blobs` (a backup that went wrong, a user) would make every read of the cache fail for good. It is
no file of regfs, so it is not deleted. A symbolic link is left alone: it may lead to a disk that is not mounted now.
Used by layer_store.py when a cache is opened. Thread rule: a function; several daemons may call it at once.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

DIRECTORIES = ("blobs", "images", "ingests", "layers", "locks", "objects", "uses", "young")


def clear_places(root: Path, note: Callable[[str], None]) -> None:
    """Rename what is no directory in the places of the directories below *root*; *note* gets a sentence for each.

    Raises OSError where it cannot be renamed.
    """
    for name in DIRECTORIES:
        path = root / name
        with suppress(FileNotFoundError):  # the usual case, or another daemon was quicker
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
                continue
            aside = root / f"{name}.aside-{secrets.token_hex(4)}"
            path.rename(aside)
            note(f"{path} was no directory and is {aside.name} now; delete that if you do not need it")
