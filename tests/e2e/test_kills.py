"""kill -9 at random instants: after the next start every byte is right, and nothing is left that nothing can reach.

REGFS_SOAK_KILLS says how often a daemon is killed: 3 times in the usual run, 1,000 for the promise. Run with -s to
see the counts.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.kill_load import kill_at_random, kill_load_images

KILLS = int(os.environ.get("REGFS_SOAK_KILLS", "3"))
SEED = int(os.environ.get("REGFS_SOAK_SEED", "1"))


@pytest.mark.timeout(300 + KILLS * 20)
def test_kills_at_random_instants_cost_no_byte_and_leave_nothing(tmp_path: Path, needs_fuse: None, driver: str) -> None:
    with kill_load_images() as images:
        killed = kill_at_random(tmp_path, images, kills=KILLS, driver=driver, seed=SEED)
    print(f"\n{driver}: {killed}", *killed.wrong, *killed.unusable, sep="\n    ")
    assert killed.kills == KILLS
    assert killed.wrong == []
    assert killed.unusable == []
    assert killed.leaked == 0
