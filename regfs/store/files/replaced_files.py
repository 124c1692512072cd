"""Writes a small file of the cache in one step: a reader sees the old content or the new, also after a kill.

Used by the modules of the store and by export/erofs/. Thread rule: any thread and process; blocks on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regfs.store.files.cached_files import put, take_away
from regfs.store.locks.file_locks import new_locked_file


def replace_file(path: Path, content: bytes, *, is_flushed: bool = False) -> None:
    """Write *content* as the file at *path*. *is_flushed*: it is on the disk before it gets its name.

    Raises OSError; the file is as it was then.
    """
    with successor_of(path, content, is_flushed=is_flushed) as written:
        put(written, path)


@contextmanager
def successor_of(path: Path, content: bytes, *, is_flushed: bool = False) -> Iterator[Path]:
    """Write *content* beside *path*, and yield the temporary file, to which the caller gives its name. Raises OSError.

    A file that has no name of its own in the end is removed.
    """
    lock, name = new_locked_file(path.parent, f".{path.suffix[1:]}-")
    try:
        with open(lock, "wb", closefd=False) as file:
            file.write(content)
        if is_flushed:
            os.fsync(lock)
        yield Path(name)
    except BaseException:  # also on Ctrl-C: half a file must not stay in the cache
        take_away(Path(name))
        raise
    finally:
        os.close(lock)
