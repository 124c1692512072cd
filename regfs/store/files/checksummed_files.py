"""Small files of the cache that carry their own sum: one that a crash has torn counts as missing.

    32 bytes    the sha256 of what follows
    the rest    the body

Used by images/verdicts.py and layers/content_digests.py. Thread rule: any thread and process; a file is replaced in one
step.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from regfs.store.files.cached_files import read_file
from regfs.store.files.failures import failures_of
from regfs.store.files.replaced_files import replace_file

SUM = hashlib.sha256().digest_size


def read_checksummed(path: Path) -> bytes | None:
    """Return the body of the file at *path*; None if it is missing or torn."""
    try:
        content = read_file(path)
    except OSError:
        return None
    body = content[SUM:]
    return body if hashlib.sha256(body).digest() == content[:SUM] else None


def write_checksummed(path: Path, body: bytes) -> None:
    """Write the file at *path*, which is complete or not there. Raises CacheFailure."""
    with failures_of(path):
        replace_file(path, hashlib.sha256(body).digest() + body)
