"""What a comparison of two images found, kept so that no byte is read twice.

    images/<chain id of B>.same-<chain id of A>       beside the merged table of B, with which it is evicted

    32 bytes     the sum of what follows (checksummed_files.py): a file of zeros would say that nothing differs
    1 byte       the version of what is compared, and in which order
    1 byte       for each undecided path, in the order of the walk: what differs (rootfs/differences.py)

Both tables are named by what is in them, so that a verdict never becomes wrong. Used by images/layers/layer_cache.py.
Thread rule: functions; any thread, any process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from regfs.store.eviction.budget import Budget
from regfs.store.files.cached_files import take_away
from regfs.store.files.checksummed_files import SUM, read_checksummed, write_checksummed
from regfs.store.files.failures import failures_of

_VERSION = b"\1"
_MOST_BESIDE_ONE = 16


def verdicts_path(table: Path, other: Path) -> Path:
    """Return the path of the verdicts on the merged tables at *other* and *table*."""
    return table.with_suffix(f".same-{other.stem}")


def read_verdicts(path: Path) -> bytes | None:
    """Return the kept verdicts; None where there are none, or they are torn or of another version."""
    body = read_checksummed(path)
    if body is None or body[:1] != _VERSION:
        return None
    with suppress(OSError):
        os.utime(path)
    return body[1:]


def write_verdicts(path: Path, verdicts: bytes, budget: Budget) -> None:
    """Keep *verdicts*. Too many beside one table: those used longest ago are removed. Raises CacheFailure."""
    body = _VERSION + verdicts
    budget.reserve_document(len(body) + SUM)
    with failures_of(path):
        beside = sorted(path.parent.glob(f"{path.stem}.same-*"), key=lambda each: each.stat().st_mtime_ns)
        for old in beside[: max(0, len(beside) + 1 - _MOST_BESIDE_ONE)]:
            take_away(old)
    write_checksummed(path, body)
