"""Keeps the cache of an app in order: removes what crashes left, enforces the limits, and looks for rot.

Used by daemon/serve.py. Thread rule: any thread; each function runs in one thread at a time. All block on the disk.
"""

from __future__ import annotations

import logging
import math
import threading

from regfs.app.composition import App
from regfs.errors import CacheDamaged, CacheFailure, RegfsError

log = logging.getLogger(__name__)


def clean_up(app: App) -> None:
    """Remove the remains of interrupted work from the cache, and evict what exceeds its size. Logs a CacheFailure."""
    try:
        app.sweep()
        app.layers.budget.trim()
    except CacheFailure as failure:
        log.warning("%s", failure)


def keep_limits(app: App) -> None:
    """Evict what is too old, and make room if other programs have filled the disk. Logs a CacheFailure."""
    try:
        app.layers.budget.keep()
    except CacheFailure as failure:
        log.warning("%s", failure)


def scrub(app: App, ended: threading.Event) -> None:
    """Check the cache for rot until *ended* is set (--scrub). Returns at once if scrubbing is off."""
    if math.isinf(app.config.scrub_age_s):
        return
    from regfs.store.scrub import Scrub
    from regfs.store.verify import Problem

    def found(problem: Problem) -> None:
        """Report a damaged file, which was dropped, and make it again if it is in use."""
        app.stats.count("cache.damaged")
        told = f"{problem}; it was dropped and is fetched again. What has it open shows it until it is closed"
        app.journal.record("scrub", CacheDamaged(told))
        try:
            app.layer_cache.replace(problem.path)
        except RegfsError as failure:  # the next read meets the same failure
            app.journal.record("scrub", failure)

    def checked(size: int) -> None:
        app.stats.count("cache.scrubbed_bytes", size)

    Scrub(app.cache, age_s=app.config.scrub_age_s, checked=checked, found=found).run(ended)
