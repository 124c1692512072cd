"""Fetching what must be right: a second try where bytes were wrong, and files that are looked at before they are used.

Used by repository.py and layer_cache.py. Thread rule: any thread.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from regfs.errors import DigestMismatch
from regfs.model.digest import Digest

log = logging.getLogger(__name__)

T = TypeVar("T")


def twice_if_wrong(fetch: Callable[[], T]) -> T:
    """Return what *fetch* does, once more where its bytes were wrong.

    It may have been the way here, or a mirror, which the client does not ask again then. Twice wrong is the registry's.
    """
    try:
        return fetch()
    except DigestMismatch as mismatch:
        log.warning("%s; fetched once more", mismatch)
        return fetch()


def size_of(path: Path) -> int | None:
    """Return the size of the file, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def has_digest(path: Path, digest: Digest) -> bool:
    """Tell whether the file's bytes have *digest*."""
    hasher = digest.hasher()
    for chunk in file_chunks(path):
        hasher.update(chunk)
    return hasher.hexdigest() == digest.encoded


def file_chunks(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
