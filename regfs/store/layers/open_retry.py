"""Opens a file of a layer: tries again where descriptors run out, and raises CacheDamaged where the file is missing.

Used by layer_store.py. Thread rule: any thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from regfs.errors import CacheDamaged
from regfs.store.files.failures import cache_failure
from regfs.store.tables.open_tables import OpenTables

T = TypeVar("T")


def open_with_retry(path: Path, open_it: Callable[[], T], tables: OpenTables) -> T:
    """Return what *open_it* returns for *path*; where descriptors run out, idle *tables* give theirs back first.

    *path* is a file of a layer that is here. Raises CacheDamaged where it is missing; CacheFailure.
    """
    try:
        return open_it()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            tables.close_idle()
    try:
        return open_it()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheDamaged(f"{path}: it is gone from the cache") from error
    except OSError as error:
        raise cache_failure(path, error) from error
