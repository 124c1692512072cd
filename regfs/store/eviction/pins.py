"""Pins: images that the user wants to keep in the cache, whatever the budget. What a pin names is never evicted.

    pins/sha256-<hex>            one file for each pinned image, by the digest of its manifest. Lines:
    docker.io/library/debian:12@sha256:…     the name that was pinned
    layers/<diff id>.index                   the image's parts, each by its main file (eviction.py, Unit.guard)
    images/<chain id>.merged
    blobs/sha256/…

A file is written in one step, and all that it names is cached at that time. Used by in_use.py, which keeps what is
named, and by the verbs `pin` and `unpin`. Thread rule: functions; any thread and process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regfs.errors import TooLarge
from regfs.model.digest import Digest
from regfs.store.files.cached_files import take_away
from regfs.store.files.failures import failures_of

DIRECTORY = "pins"
MOST = 10_000
"""How many images may be pinned: each eviction reads all pins."""


class Pin(NamedTuple):
    """One pinned image: the digest of its manifest, its full name, and the names of its parts below the cache."""

    digest: str
    name: str
    parts: frozenset[str]


def keep_pin(root: Path, digest: Digest, name: str, parts: Iterable[Path]) -> None:
    """Pin the image *digest* of the cache at *root*, whose parts are *parts*. Raises TooLarge, CacheFailure."""
    directory = root / DIRECTORY
    with failures_of(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if len(os.listdir(directory)) >= MOST:
            raise TooLarge(f"{MOST} images are pinned, and no more can be; regfs unpin IMAGE unpins one")
        lines = [name, *sorted(path.relative_to(root).as_posix() for path in parts)]
        fd, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)
        try:
            with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(fd)
            os.rename(temporary, directory / _file_name(digest))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def drop_pin(root: Path, digest: Digest) -> bool:
    """Unpin the image *digest*; tell whether it was pinned. Raises CacheFailure."""
    path = root / DIRECTORY / _file_name(digest)
    with failures_of(path):
        was_there = path.exists()
        take_away(path)
    return was_there


def pins(root: Path) -> list[Pin]:
    """Return all pins, by name. Raises CacheFailure."""
    with failures_of(root / DIRECTORY):
        return sorted(_read_all(root), key=lambda pin: pin.name)


def pinned_parts(root: Path) -> frozenset[str]:
    """Return the names of all that is pinned. Raises OSError."""
    return frozenset[str]().union(*(pin.parts for pin in _read_all(root)))


def _read_all(root: Path) -> list[Pin]:
    found = []
    try:
        paths = [path for path in (root / DIRECTORY).iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    for path in paths:
        try:
            name, *parts = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except (FileNotFoundError, ValueError):  # unpinned just now, or an empty file of another program
            continue
        found.append(Pin(path.name.replace("-", ":", 1), name, frozenset(parts)))
    return found


def _file_name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.encoded}"
