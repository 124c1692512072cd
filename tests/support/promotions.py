"""Waiting for the thread that copies big files (store/layers/promotion.py)."""

from __future__ import annotations

import threading


def join_promotions() -> None:
    """Wait until nothing more is promoted."""
    for thread in threading.enumerate():
        if thread.name == "regfs-promotion":
            thread.join(60)
