"""The working directories of ingests: one for each, removed by others only after its process has died.

    ingests/<token>.lock         locked by the living ingest
    ingests/<token>/             what it writes (layer_writer.py)

Used by layer_store.py. Thread rule: any thread; several daemons may share the directory.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regfs.store.files.failures import failures_of

log = logging.getLogger(__name__)


@contextmanager
def ingest_directory(ingests: Path) -> Iterator[Path]:
    """Make a directory below *ingests* and remove it at the end; sweep_ingests() skips it while this process lives.

    Raises CacheFailure.
    """
    token = secrets.token_hex(8)
    lock_path, directory = ingests / f"{token}.lock", ingests / token
    with failures_of(directory):
        ingests.mkdir(parents=True, exist_ok=True)
        lock = _lock_new(lock_path)
        try:
            directory.mkdir()
        except OSError:
            lock_path.unlink(missing_ok=True)
            os.close(lock)
            raise
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        lock_path.unlink(missing_ok=True)
        os.close(lock)


def abandon_ingest(directory: Path) -> None:
    """Remove the directory of an ingest that still runs in this process, which is about to end."""
    aside = directory.with_suffix(".abandoned")  # what the thread still opens by its path is not there any more
    try:
        directory.rename(aside)
    except OSError:
        return  # the thread was quicker
    shutil.rmtree(aside, ignore_errors=True)
    directory.with_suffix(".lock").unlink(missing_ok=True)


def sweep_ingests(ingests: Path) -> None:
    """Remove what dead ingests left below *ingests*; living ones are not touched. Raises OSError."""
    for directory in ingests.iterdir() if ingests.is_dir() else ():
        _sweep(ingests, directory.name.removesuffix(".lock"))


def _sweep(ingests: Path, token: str) -> None:
    """Remove what the ingest left, unless its process lives and holds its lock."""
    lock_path = ingests / f"{token}.lock"
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Without a lock file there is no owner: it is made before the directory and removed after it.
        shutil.rmtree(ingests / token, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        log.info("removing what an interrupted ingest left in %s", ingests / token)
        shutil.rmtree(ingests / token, ignore_errors=True)
        lock_path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _lock_new(path: Path) -> int:
    """Return the descriptor of a new, locked file."""
    # A sweep between open and lock takes the file for a dead ingest's and removes it: then try again.
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.stat(path).st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)
