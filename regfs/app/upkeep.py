"""Keeps the cache of an app in order: what crashes left, what is beyond its limits, rot.

Used by daemon/serve.py. Thread rule: each function in any one thread; all block on the disk.
"""

from __future__ import annotations

import logging
import math
import threading

from regfs.app.composition import App
from regfs.errors import CacheDamaged, CacheFailure, RegfsError

log = logging.getLogger(__name__)


def clean_up(app: App) -> None:
    """Remove the remains of interrupted work from the cache, and what is over its limit."""
    try:
        app.sweep()
        app.layers.budget.trim()
    except CacheFailure as failure:
        log.warning("%s", failure)


def keep_limits(app: App) -> None:
    """Evict what has grown too old, or must go because others have filled the disk."""
    try:
        app.layers.budget.keep()
    except CacheFailure as failure:
        log.warning("%s", failure)


def scrub(app: App, ended: threading.Event) -> None:
    """Look for rot in the cache until *ended* is set: --scrub. Returns at once where that is off."""
    if math.isinf(app.config.scrub_age_s):
        return
    from regfs.store.scrub import Scrub
    from regfs.store.verify import Problem

    def found(problem: Problem) -> None:
        """Tell of a damaged file that was dropped, and let what is in use be made again."""
        app.stats.count("cache.damaged")
        told = f"{problem}; it was dropped and is fetched again. What has it open shows it until it is closed"
        app.journal.record("scrub", CacheDamaged(told))
        try:
            app.layer_cache.replace(problem.path)
        except RegfsError as failure:  # the next read of it meets the failure, too
            app.journal.record("scrub", failure)

    def checked(size: int) -> None:
        app.stats.count("cache.scrubbed_bytes", size)

    Scrub(app.cache, age_s=app.config.scrub_age_s, checked=checked, found=found).run(ended)
