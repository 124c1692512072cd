"""The merged tables of what differs between two images: where they are, and how many are kept.

    images/<chain id of B>.added-<chain id of A>         beside the merged table of B, with which it is evicted
    images/<chain id of B>.sums-added-<chain id of A>    its sum (checksums.py); likewise of `removed` and `changed`

rootfs/trees_of_differences.py says what is in them. Both images are named by what is in them, so that a table never
becomes wrong. Used by images/comparing/, and by verify.py. Thread rule: functions; any thread, any process.
"""

from __future__ import annotations

from pathlib import Path

from regfs.store.files.cached_files import take_away
from regfs.store.files.checksums import SUFFIX as SUMS
from regfs.store.files.failures import failures_of

KINDS = ("added", "removed", "changed")
_MOST_BESIDE_ONE = 16


def differing_path(kind: str, a: Path, b: Path) -> Path:
    """Return the path of the table *kind* (added, removed, changed) of the images with merged tables at *a* and *b*."""
    return b.with_suffix(f".{kind}-{a.stem}")


def sums_of(table: Path) -> Path:
    """Return the path of the checksum of such a table."""
    return table.with_suffix(f"{SUMS}-{table.suffix[1:]}")


def is_differing(suffix: str) -> bool:
    """Tell whether *suffix*, with its dot, is that of such a table."""
    return suffix[1:].partition("-")[0] in KINDS and "-" in suffix


def drop_oldest(table: Path) -> None:
    """Remove the tables of one kind beside one image that were used longest ago, to make a place for *table*."""
    with failures_of(table):
        kind = table.suffix.partition("-")[0]
        beside = [path for path in table.parent.glob(f"{table.stem}{kind}-*") if path != table]
        beside.sort(key=_used_ns)
        for old in beside[: max(0, len(beside) + 1 - _MOST_BESIDE_ONE)]:
            take_away(old)
            take_away(sums_of(old))


def _used_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # another process was faster
        return 0
