"""Small files of the cache that carry their own sum: one that a crash has torn counts as missing.

    32 bytes    the sha256 of what follows
    the rest    the body

Used by images/verdicts.py and layers/content_digests.py. Thread rule: any thread and process; a file is replaced in one
step.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from regfs.store.files.cached_files import put, read_file, take_away
from regfs.store.files.failures import failures_of
from regfs.store.locks.file_locks import new_locked_file

SUM = hashlib.sha256().digest_size


def read_summed(path: Path) -> bytes | None:
    """Return the body of the file at *path*; None if it is missing or torn."""
    try:
        content = read_file(path)
    except OSError:
        return None
    body = content[SUM:]
    return body if hashlib.sha256(body).digest() == content[:SUM] else None


def write_summed(path: Path, body: bytes) -> None:
    """Write the file at *path*, which is complete or not there. Raises CacheFailure."""
    with failures_of(path):
        lock, name = new_locked_file(path.parent, f".{path.suffix[1:]}-")
        try:
            with open(lock, "wb", closefd=False) as file:
                file.write(hashlib.sha256(body).digest() + body)
            put(name, path)
        except BaseException:
            take_away(Path(name))
            raise
        finally:
            os.close(lock)
