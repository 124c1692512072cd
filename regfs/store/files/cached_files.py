"""Opens, reads, hashes and removes files of the cache, and clears away anything else that has their name.

regfs writes only regular files there. A directory, a FIFO, a socket or a link to itself came from elsewhere (a repaired
file system, a failed backup, a user): it counts as missing, and is replaced by what is fetched. Opening never waits, as
it would for a FIFO without a writer.

Used by the other modules of the store. Thread rule: any thread; every open file belongs to its caller.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from regfs.model.digest import Hasher

log = logging.getLogger(__name__)

_CHUNK_SIZE = 1 << 20
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
# A symbolic link that leads to itself; a socket.
_NO_FILE = (errno.ELOOP, errno.ENXIO)


def open_file(path: Path) -> int:
    """Return a descriptor of the regular file at *path*, to read it.

    Anything else at *path* is removed, and FileNotFoundError raised. Raises OSError.
    """
    try:
        try:
            fd = os.open(path, _FLAGS)
        except BlockingIOError:  # for some microseconds, another process has a lease on the file (kernel_mounts.py)
            fd = os.open(path, _FLAGS & ~os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
    else:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    log.warning("%s is not a file and is removed", path)
    take_away(path)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))


def read_file(path: Path) -> bytes:
    """Return the bytes of a small file. Raises OSError as open_file() does."""
    with open(open_file(path), "rb") as file:
        return file.read()


def file_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, a mebibyte at a time. Raises OSError as open_file() does."""
    with open(open_file(path), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_SIZE):
            yield chunk


def hash_file(path: Path, hasher: Hasher) -> str:
    """Return the hexadecimal digest of a file by *hasher*: a second for each gigabyte. Raises OSError."""
    for chunk in file_chunks(path):
        hasher.update(chunk)
    return hasher.hexdigest()


def take_away(path: Path) -> None:
    """Remove what is at *path*, if anything: a directory with all that is in it. Raises OSError."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(path)


def put(source: Path | str, destination: Path) -> None:
    """Rename *source* to *destination*, replacing even a directory there. Raises OSError."""
    try:
        os.rename(source, destination)
    except IsADirectoryError:
        take_away(destination)
        os.rename(source, destination)
