"""The workload of a comparison: two images that share no layer, and whose 40,000 files are equal. Used by workloads.py.

It is the most that a comparison may have to read: each byte of both images.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from tests.bench.measure import Row, keep_least, run, timed
from tests.support.mounted import regfs_command

if TYPE_CHECKING:
    from tests.bench.bench import Bench

DIFF = "regfs diff"
"""The column of the verb."""
TIMES = 3


def comparison(bench: Bench) -> list[Row]:
    """`regfs diff` of two images of 1 GB, all here, that share no layer: the first time, and again"""
    registry, images = bench.images.registry.address, bench.images.unshared()
    first = Row("regfs diff of two images of 1 GB and 40,000 paths that share no layer", "s", goal=4)
    again = Row("  again", "s", goal=0.5)
    for _ in range(TIMES):
        cache = tempfile.mkdtemp(dir=bench.scratch)
        options = ["--cache-dir", cache, "--default-registry", registry]
        run([*regfs_command(), "prefetch", *options, *images])
        compare = partial(run, [*regfs_command(), "diff", *options, *images])
        keep_least(first.values, DIFF, timed(compare))
        keep_least(again.values, DIFF, timed(compare))
        shutil.rmtree(cache)
    first.note = f"from process start, after both were fetched into an empty cache; least of {TIMES}"
    return [first, again]
