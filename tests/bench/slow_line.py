"""The workload behind a slow line: whole layers against the parts that are read. Used by workloads.py."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tests.bench.measure import Row, run, timed
from tests.support.shaping_proxy import ShapingProxy

if TYPE_CHECKING:
    from tests.bench.bench import Bench

BYTES_PER_S, DELAY_S = 100e6 / 8, 0.02
IMPORT = ("python3", "-c", "import numpy")


def slow_line(bench: Bench) -> list[Row]:
    """the large image behind 20 ms and 100 Mbit/s, from mount to `import numpy`: whole, and with its SOCI index"""
    registry, image = bench.images.science()
    indexed = bench.images.indexed(registry, image)
    whole_s = Row("cold mount to import numpy behind 20 ms and 100 Mbit/s", "s")
    indexed_s = Row("  with its SOCI index pushed", "s")
    share = Row("  bytes fetched then, of what is fetched without", "%", goal=25)
    with ShapingProxy(registry, bytes_per_s=BYTES_PER_S, delay_s=DELAY_S, shared=True) as proxy:
        for driver in bench.drivers:
            whole_s.values[driver], all_bytes = _cold(bench, driver, proxy.address, image)
            indexed_s.values[driver], some_bytes = _cold(bench, driver, proxy.address, indexed)
            share.values[driver] = 100 * some_bytes / all_bytes
    indexed_s.goal = min(whole_s.values.values()) / 3
    indexed_s.note = "goal: a third of the time without; an empty cache and a fresh mount each, once"
    return [whole_s, indexed_s, share]


def _cold(bench: Bench, driver: str, registry: str, image: str) -> tuple[float, float]:
    """Return the seconds from mount to `import numpy` with nothing cached, and the bytes fetched."""
    mount = bench.mounted(driver, registry)
    os.sync()

    def work() -> None:
        mount.mount()
        run(["chroot", bench.path(mount, image) / "rootfs", *IMPORT])

    seconds, fetched = timed(work), mount.stats()["registry.bytes"]
    mount.unmount()
    shutil.rmtree(mount.cache, ignore_errors=True)
    return seconds, fetched
