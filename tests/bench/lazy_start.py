"""The workload of a start from an eStargz image: regfs beside stargz-store, and the bytes that each fetches.

stargz-store is the FUSE mount through which podman reads eStargz layers (containerd/stargz-snapshotter). Debian
packages its library, but not the program. Used by workloads.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measure import Row, keep_least, run, timed
from tests.bench.peers import StargzStore
from tests.bench.slow_line import IMPORT
from tests.support.shaping_proxy import CountingProxy

if TYPE_CHECKING:
    from tests.bench.bench import Bench

TIMES = 3


def lazy_start(bench: Bench) -> list[Row]:
    """the large image as eStargz (BENCH_ESTARGZ), from mount to `import numpy`, nothing cached; beside stargz-store"""
    registry, image = os.environ.get("BENCH_REGISTRY"), os.environ.get("BENCH_ESTARGZ")
    if not registry or not image:
        bench.leave_out("lazy_start", "BENCH_ESTARGZ is to name an image of BENCH_REGISTRY (ctr-remote image convert)")
        return []
    row = Row("cold mount of eStargz to import numpy", "s")
    again = Row("  with its start recorded and pushed", "s")
    recorded = bench.images.recorded(registry, image, IMPORT)
    fetched = Row("  fetched for it", "MB")
    starts: dict[str, Callable[[str], float]] = {
        driver: partial(_start_of_regfs, bench, driver, image) for driver in bench.drivers
    }
    if reason := StargzStore.why_not():
        bench.leave_out(StargzStore.name, reason)
    else:
        starts[StargzStore.name] = partial(_start_of_stargz_store, bench, image)
    for _ in range(TIMES):
        for column, start in starts.items():
            keep_least(row.values, column, start(registry))
        for driver in bench.drivers:
            keep_least(again.values, driver, _start_of_regfs(bench, driver, recorded, registry))
    for column, start in starts.items():
        with CountingProxy(registry) as proxy:
            start(proxy.address)
            fetched.values[column] = proxy.received / 1e6
    if StargzStore.name in row.values:
        again.values[StargzStore.name] = row.values[StargzStore.name]
    for each in (row, again):
        each.limit(bench.drivers[0], to=StargzStore.name, times=0.7)
    row.note = f"goal: 0.7 of stargz-store's time; an empty cache and a fresh mount each; least of {TIMES}"
    again.note = "regfs record --push, by another cache; stargz-store as above"
    fetched.note = "counted in one more start, through a proxy"
    return [row, again, fetched]


def _start_of_regfs(bench: Bench, driver: str, image: str, registry: str) -> float:
    """Return the seconds from the start of regfs to the end of the import."""
    mount = bench.mounted(driver, registry)
    os.sync()

    def work() -> None:
        mount.mount()
        run(["chroot", bench.path(mount, image) / "rootfs", *IMPORT])

    seconds = timed(work)
    mount.unmount()
    shutil.rmtree(mount.cache, ignore_errors=True)
    return seconds


def _start_of_stargz_store(bench: Bench, image: str, registry: str) -> float:
    """Return the seconds from the start of stargz-store to the end of the import, in an overlay of its layers."""
    os.sync()
    with tempfile.TemporaryDirectory(dir=bench.scratch) as directory, StargzStore(Path(directory)) as store:
        return timed(lambda: run(["chroot", store.rootfs(registry, image), *IMPORT]))
