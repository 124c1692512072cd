"""The workloads that begin with nothing cached, and the list of all workloads.

Each takes the Bench and returns rows; the docstring's first line is what --help shows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench, mount_and_run
from tests.bench.budget import rows as budget_rows
from tests.bench.comparison import comparison
from tests.bench.kills import kills
from tests.bench.known_image import archive, clients, find, lookups, million, remount, sequential
from tests.bench.lazy_start import lazy_start
from tests.bench.measure import Row, keep_least, memory_of, run, timed
from tests.bench.model import rows as model_rows
from tests.bench.peers import PodmanRun
from tests.bench.restarts import restarts
from tests.bench.slow_line import IMPORT, slow_line
from tests.support.mounted import regfs_command
from tests.support.shaping_proxy import ShapingProxy

# How often regfs and each peer do what takes at most seconds.
TIMES = 3
LEAST = f"least of {TIMES}"
# Seconds after which a mount has done the work that it puts off at its start (daemon/serve.py).
_IDLE_AFTER_S = 4.0
RUN, RUN_BY_FUSE = "regfs run", "regfs run --fuse"
"""The columns of `regfs run`: the image's files served by the kernel, and by FUSE."""


def _fetch_and_run(fetch: Callable[[], Path], *command: str) -> float:
    """Return the seconds that a peer takes to fetch an image and run *command* in it."""
    return timed(lambda: run(["chroot", fetch(), *command]))


def hello(bench: Bench) -> list[Row]:
    """hello-world, from process start to its output in a chroot, nothing cached"""
    registry, image = bench.images.registry.address, bench.images.hello()
    row = Row("hello-world, process start to chroot's output, cold", "s", goal=0.4)
    for _ in range(TIMES):
        for driver in bench.drivers:
            mount = bench.mounted(driver, registry)
            rootfs = bench.path(mount, image) / "rootfs"
            keep_least(row.values, driver, mount_and_run(mount, "chroot", rootfs, "/hello"))
            mount.unmount()
        for peer in bench.peers():
            with bench.fetched(peer, registry, image) as fetch:
                keep_least(row.values, peer.name, _fetch_and_run(fetch, "/hello"))
    row.note = f"an empty cache and a fresh mount each; {LEAST}"
    return [row]


def running(bench: Bench) -> list[Row]:
    """`regfs run hello-world`, from process start to its end, nothing cached and again; beside podman run"""
    registry, image = bench.images.registry.address, bench.images.hello()
    first = Row("regfs run hello-world, cold", "s", goal=0.6)
    again = Row("  again", "s", goal=0.35)
    podman = PodmanRun()
    for _ in range(TIMES):
        for column, options in ((RUN, []), (RUN_BY_FUSE, ["--fuse"])):
            cache = tempfile.mkdtemp(dir=bench.scratch)
            command = [*regfs_command(), "run", "--cache-dir", cache, *options, f"{registry}/{image}"]
            keep_least(first.values, column, timed(partial(run, command)))
            keep_least(again.values, column, timed(partial(run, command)))
        directory = Path(tempfile.mkdtemp(dir=bench.scratch))
        command = podman.command(directory, registry, image)
        try:
            keep_least(first.values, podman.name, timed(partial(run, command)))
            keep_least(again.values, podman.name, timed(partial(run, command)))
        except (RuntimeError, OSError) as error:
            bench.notes.append(f"podman run is left out: {str(error)[-200:]}")
        finally:
            podman.clean_up(directory)
            shutil.rmtree(directory, ignore_errors=True)
    first.note = f"an empty cache each; {LEAST}"
    return [first, again]


def cold(bench: Bench) -> list[Row]:
    """the large image, from mount to `chroot python3 -c 'import numpy'`, nothing cached; memory during it"""
    registry, image = bench.images.science()
    row = Row("cold mount to chroot python3 -c 'import numpy'", "s")
    memory = Row("  resident memory of all regfs processes meanwhile", "MB", goal=200)
    # Brings the image into the page cache: usually the registry is another machine, whose disk is not measured here.
    bench.on_disk(registry, image)
    for driver in bench.drivers:
        mount = bench.mounted(driver, registry)
        os.sync()  # so that what was written before does not count here
        with memory_of(mount.processes) as peak:
            rootfs = bench.path(mount, image) / "rootfs"
            row.values[driver] = mount_and_run(mount, "chroot", rootfs, *IMPORT)
        memory.values[driver] = peak.pss / 1e6
        mount.unmount()
        shutil.rmtree(mount.cache, ignore_errors=True)
    for peer in bench.peers():
        os.sync()
        with bench.fetched(peer, registry, image) as fetch:
            row.values[peer.name] = _fetch_and_run(fetch, *IMPORT)
    if "podman" in row.values:
        row.goal = row.values["podman"] / 4.8
    row.note = "goal: podman's time divided by 4.8; an empty cache and a fresh mount"
    memory.note = "at most, looked at twenty times a second; what processes share counts once"
    return [row, memory]


def connections(bench: Bench) -> list[Row]:
    """a layer of 480 MB, cold, from a registry that gives 60 MB/s and 30 ms to each connection"""
    registry, image = bench.images.registry.address, bench.images.wire()
    one = Row("layer of 480 MB, 60 MB/s and 30 ms each connection: --connections 1", "s")
    several = Row("  --connections auto", "s")
    with ShapingProxy(registry, bytes_per_s=60e6, delay_s=0.03) as proxy:
        for _ in range(TIMES):
            for row, number in ((one, "1"), (several, "auto")):
                for driver in bench.drivers:
                    mount = bench.mounted(driver, proxy.address, options=["--connections", number])
                    os.sync()
                    rootfs = bench.path(mount, image) / "rootfs"
                    keep_least(row.values, driver, mount_and_run(mount, "ls", rootfs))
                    mount.unmount()
                    shutil.rmtree(mount.cache, ignore_errors=True)
    several.goal = min(one.values.values()) / 3
    several.note = f"goal: a third of one connection's; an empty cache and a fresh mount each; {LEAST}"
    return [one, several]


def lazy(bench: Bench) -> list[Row]:
    """`ls rootfs` of an image with a table of contents of 35,000 files, nothing cached; bytes fetched for it"""
    rows = []
    for name, image in bench.images.lazy().items():
        row = Row(f"cold mount to ls rootfs, 35,000 files as {name}", "s")
        mounted = Row("  ls rootfs alone, in a mount that has just begun to idle", "s", goal=0.5)
        fetched = Row("  fetched for it", "MB", goal=6)
        for driver in bench.drivers:
            for _ in range(TIMES):
                for wait_s, timed_row in ((0.0, row), (_IDLE_AFTER_S, mounted)):
                    mount = bench.mounted(driver, bench.images.registry.address)
                    rootfs = bench.path(mount, image) / "rootfs"
                    started_s = timed(mount.mount)
                    time.sleep(wait_s)
                    listed_s = timed(partial(run, ["ls", rootfs]))
                    keep_least(timed_row.values, driver, listed_s if wait_s else started_s + listed_s)
                    keep_least(fetched.values, driver, mount.stats()["registry.bytes"] / 1e6)
                    mount.unmount()
        row.note = f"an empty cache and a fresh mount each; {LEAST}"
        rows += [row, mounted, fetched]
    return rows


def model(bench: Bench) -> list[Row]:
    """a model of 1 GiB that is here, read and mapped through files/ after the page cache was dropped"""
    return model_rows(bench.images.registry, bench.drivers, bench.scratch)


def budget(bench: Bench) -> list[Row]:
    """1.2 GB read at random by four readers, with a cache of 200 MB: what it holds at most"""
    return budget_rows(bench.drivers, bench.scratch)


WORKLOADS: dict[str, Callable[[Bench], list[Row]]] = {
    work.__name__: work
    for work in (
        hello,
        running,
        cold,
        connections,
        lazy,
        lazy_start,
        slow_line,
        find,
        remount,
        sequential,
        archive,
        lookups,
        million,
        clients,
        budget,
        comparison,
        kills,
        model,
        restarts,
    )
}
