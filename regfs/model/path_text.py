"""Writes paths of images as one line of text: a path may have any bytes but NUL. Used by reports and verbs. Pure."""

from __future__ import annotations

import os


def printable(path: bytes) -> str:
    """Return *path* on one line, with unprintable characters escaped as by `ls -b`."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else f"\\{ord(c):03o}" for c in text)
