"""The directories of a cache: clears files out of their places, and survives `rm -r` of the cache while it is used.

A regular file named `blobs` (a failed backup, a user) would make every read of the cache fail for good. regfs has not
written it, so it is renamed and kept. A symbolic link is left alone: it may lead to a disk that is not mounted now.

Used by layer_store.py when a cache is opened, and by images/layers/. Thread rule: functions; several daemons may call
them at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from regfs.errors import CacheFailure

log = logging.getLogger(__name__)
_Done = TypeVar("_Done")

DIRECTORIES = ("blobs", "images", "ingests", "layers", "locks", "objects", "uses", "young")


def clear_places(root: Path, note: Callable[[str], None]) -> None:
    """Rename every file that stands in the place of a directory below *root*; call *note* with a sentence for each.

    Raises OSError where one cannot be renamed.
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


def twice_if_deleted(work: Callable[[], _Done], root: Path) -> _Done:
    """Return the result of *work*, which writes to the cache at *root*; repeat it once if `rm -r` interrupted it.

    Raises what *work* does.
    """
    place = root / "ingests"  # every writer of layers makes it, and regfs never removes it
    with suppress(OSError):  # *work* will say what is wrong
        place.mkdir(parents=True, exist_ok=True)
    before = _identity(place)
    try:
        return work()
    except CacheFailure as failure:
        if _identity(place) == before:
            raise
        log.warning("%s; the cache was deleted meanwhile, and the work is repeated", failure)
    return work()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
