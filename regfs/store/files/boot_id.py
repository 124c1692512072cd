"""Identifies this boot of the machine: files that were not flushed before it may be torn. Any thread."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return an id that each boot of the machine has of its own."""
    return _BOOT_ID.read_text().strip()
