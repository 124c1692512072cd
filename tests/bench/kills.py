"""Daemons that are killed at random instants."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measure import Row
from tests.support.kill_load import kill_at_random, kill_load_images

KILLS = int(os.environ.get("REGFS_SOAK_KILLS", "100"))


def kills(bench: Bench) -> list[Row]:
    """a daemon with a small cache killed at random instants, REGFS_SOAK_KILLS (100) times: wrong bytes, leaks"""
    count = Row(f"kill -9 of daemons and verbs, {KILLS} times: reads between", "")
    wrong = Row("  wrong or failed reads", "", goal=0.0)
    unusable = Row("  caches with something wrong", "", goal=0.0)
    leaked = Row("  bytes left after prune", "", goal=0.0)
    with kill_load_images() as images:
        for driver in bench.drivers:
            directory = Path(tempfile.mkdtemp(dir=bench.scratch))
            killed = kill_at_random(directory, images, kills=KILLS, driver=driver)
            count.values[driver] = killed.reads
            wrong.values[driver] = len(killed.wrong)
            unusable.values[driver] = len(killed.unusable)
            leaked.values[driver] = killed.leaked
    return [count, wrong, unusable, leaked]
