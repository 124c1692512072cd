"""This boot of the machine: what was not flushed to the disk before it may not be there. Any thread."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this boot of the machine from any other."""
    return _BOOT_ID.read_text().strip()
