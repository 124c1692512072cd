"""Writes paths and texts of images on one line: a path may have any bytes but NUL. Used by reports and verbs. Pure."""

from __future__ import annotations

import os


def printable(path: bytes) -> str:
    """Return *path* on one line, with unprintable characters escaped as by `ls -b`."""
    return escaped(os.fsdecode(path))


def escaped(text: str) -> str:
    """Return *text*, whose author may be anyone, on one line, with unprintable characters escaped as by `ls -b`."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else f"\\{ord(c):03o}" for c in text)
