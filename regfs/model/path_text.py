"""Paths in images as one line of text: their bytes may be anything but zero. Used by reports and verbs. Pure."""

from __future__ import annotations

import os


def printable(path: bytes) -> str:
    """Return *path* on one line: what is not printable as `ls -b` writes it."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else f"\\{ord(c):03o}" for c in text)
