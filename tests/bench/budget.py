"""More is read than the cache may hold."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.measure import Row
from tests.support.lazy_layers import estargz
from tests.support.mounted import Mounted
from tests.support.small_budget import ManyImages, many_images, read_at_random

MIB = 1 << 20
IMAGES, SIZE, LIMIT, READERS, READS = 60, 20 * MIB, 200 * MIB, 4, 240


def rows(drivers: Sequence[str], scratch: Path) -> list[Row]:
    """Return what the cache held at most, with 4 readers, while 1.2 GB are read in random order with 200 MB allowed."""
    most = Row("cache of 200 MiB, 1.2 GB read at random: most", "MiB", goal=(LIMIT + READERS * SIZE) / MIB)
    rate = Row("  bytes given", "MiB/s", more_is_better=True)
    wrong = Row("  wrong or failed reads", "", goal=0.0)
    with many_images(IMAGES, size=SIZE) as images:
        _read(images, [most, rate, wrong], drivers, scratch)
    of_lazy = [
        Row("cache of 200 MiB, one eStargz image of 1.2 GB read at random: most", "MiB", goal=most.goal),
        Row("  bytes given", "MiB/s", more_is_better=True),
        Row("  wrong or failed reads", "", goal=0.0),
    ]
    with many_images(1, size=IMAGES * SIZE, files=IMAGES * 4, builders=[estargz]) as images:
        _read(images, of_lazy, drivers, scratch)
    return [most, rate, wrong, *of_lazy]


def _read(images: ManyImages, rows: Sequence[Row], drivers: Sequence[str], scratch: Path) -> None:
    """Fill *rows*: the most bytes that the cache held, the rate, wrong reads."""
    most, rate, wrong = rows
    for driver in drivers:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        options = ["--driver", driver, "--default-registry", images.address, "--cache-size", f"{LIMIT // MIB}M"]
        with Mounted(directory, options=options, preloaded_runs=False) as mount:
            watched = read_at_random(images, mount, reads=READS, readers=READERS)
        most.values[driver] = watched.most_bytes / MIB
        rate.values[driver] = watched.read_bytes / MIB / watched.seconds
        wrong.values[driver] = len(watched.wrong)
