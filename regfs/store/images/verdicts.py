"""What a comparison of two images found, kept so that no byte is read twice.

    images/<chain id of B>.same-<chain id of A>       beside the merged table of B, with which it is evicted

    32 bytes     the sha256 of what follows: a crash may leave a file of zeros, which would say that nothing differs
    1 byte       the version of what is compared, and in which order
    1 byte       for each undecided path, in the order of the walk: what differs (rootfs/differences.py)

Both tables are named by what is in them, so that a verdict never becomes wrong. Written under a temporary name and
renamed. Used by images/layers/layer_cache.py. Thread rule: functions; any thread, any process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from regfs.store.eviction.budget import Budget
from regfs.store.files.cached_files import put, read_file, take_away
from regfs.store.files.failures import cache_failure
from regfs.store.locks.file_locks import lock_new

_VERSION = b"\1"
_SUM = hashlib.sha256().digest_size
_MOST_BESIDE_ONE = 16


def verdicts_path(table: Path, other: Path) -> Path:
    """Return the path of the verdicts on the merged tables at *other* and *table*."""
    return table.with_suffix(f".same-{other.stem}")


def read_verdicts(path: Path) -> bytes | None:
    """Return the kept verdicts; None where there are none, or they are torn or of another version."""
    try:
        kept = read_file(path)
    except OSError:
        return None
    body = kept[_SUM:]
    if hashlib.sha256(body).digest() != kept[:_SUM] or body[:1] != _VERSION:
        return None
    with suppress(OSError):
        os.utime(path)
    return body[1:]


def write_verdicts(path: Path, verdicts: bytes, budget: Budget) -> None:
    """Keep *verdicts*. Too many beside one table: those used longest ago are removed. Raises CacheFailure."""
    body = _VERSION + verdicts
    budget.reserve_document(len(body) + _SUM)
    try:
        beside = sorted(path.parent.glob(f"{path.stem}.same-*"), key=lambda each: each.stat().st_mtime_ns)
        for old in beside[: max(0, len(beside) + 1 - _MOST_BESIDE_ONE)]:
            take_away(old)
        lock, name = tempfile.mkstemp(prefix=".verdicts-", dir=path.parent)
        try:
            lock_new(lock)  # an eviction removes temporary files without a lock
            with open(lock, "wb", closefd=False) as file:
                file.write(hashlib.sha256(body).digest() + body)
            put(name, path)
        except BaseException:
            take_away(Path(name))
            raise
        finally:
            os.close(lock)
    except OSError as error:
        raise cache_failure(path, error) from error
