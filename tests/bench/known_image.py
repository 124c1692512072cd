"""The workloads on a known image: look-ups, find, tar, and reading, side by side with podman's mount and ext4.

All columns begin alike. Names forgotten: the kernel has neither names nor inodes, what is on the disk is in the page
cache, and mounts are fresh. All forgotten: the page cache is empty too. Used by workloads.py.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.bench import EXT4, KERNEL_MOUNT, PODMAN, mount_and_run
from tests.bench.images import small_names
from tests.bench.measure import Row, drop_page_cache, forget_names, keep_least, memory_of, rss_of, run, timed
from tests.bench.peers import Podman

if TYPE_CHECKING:
    from tests.bench.bench import Bench

CLIENTS, READS_EACH = 4, 4000
TIMES = 5
LEAST = f"least of {TIMES}"


def find(bench: Bench) -> list[Row]:
    """`find rootfs -printf %s` over the large image: names forgotten, again, and all forgotten"""
    registry, image = bench.images.science()
    first = Row("find rootfs -printf %s, names forgotten", "s", goal=0.4)
    again = Row("  again", "s", goal=0.15)
    nothing = Row("  all forgotten", "s")
    each = Row("  names forgotten, per entry", "µs", goal=10)
    _read_all(bench, registry, image, _time_of_find, first, again, nothing)
    entries = _find(bench.on_disk(registry, image))
    each.values = {column: seconds / entries * 1e6 for column, seconds in first.values.items()}
    for row in (first, again):
        row.limit(KERNEL_MOUNT, to=EXT4)
    first.note = f"goal of regfs mount: ext4; a fresh mount each; {LEAST}"
    return [first, again, nothing, each]


def _read_all(
    bench: Bench, registry: str, image: str, work: Callable[[Path], float], first: Row, again: Row, nothing: Row
) -> None:
    """Fill the rows with the seconds that *work* takes in each column: names forgotten, again, and all forgotten."""
    for number in range(1 + TIMES):
        for column in bench.columns():
            with bench.rootfs(column, registry, image) as root:
                forget_names()
                seconds = work(root), work(root)
            if number:  # the first round brings what is on the disk into the page cache
                keep_least(first.values, column, seconds[0])
                keep_least(again.values, column, seconds[1])
    for _ in range(TIMES):
        for column in bench.columns():
            with bench.rootfs(column, registry, image) as root:
                drop_page_cache()
                keep_least(nothing.values, column, work(root))


def _find(root: Path) -> int:
    """Return how many entries find(1) prints a size for."""
    done = subprocess.run(["find", root, "-printf", "%s\n"], capture_output=True, check=True)
    return done.stdout.count(b"\n")


def _time_of_find(root: Path) -> float:
    return timed(lambda: _find(root))


def remount(bench: Bench) -> list[Row]:
    """a known image in a new mount: from process start to the first answer of `ls rootfs`; memory when idle"""
    registry, image = bench.images.science()
    row = Row("known image, process start to first ls rootfs", "s", goal=0.3)
    idle = Row("  resident memory of all regfs processes, idle", "MB", goal=60)
    row.goals[KERNEL_MOUNT] = 0.25
    for _ in range(TIMES):
        for driver in bench.drivers:
            mount = bench.mounted(driver, registry, cache=bench.warm_cache(driver, registry, image))
            keep_least(row.values, driver, mount_and_run(mount, "ls", bench.path(mount, image) / "rootfs"))
            idle.values[driver] = rss_of(mount.processes()) / 1e6
            mount.unmount()
        if KERNEL_MOUNT in bench.columns():
            keep_least(row.values, KERNEL_MOUNT, _kernel_mount_and_ls(bench, registry, image))
        if PODMAN in bench.columns():
            keep_least(row.values, PODMAN, _podman_mount_and_ls(bench, registry, image))
    row.note = LEAST
    return [row, idle]


def _kernel_mount_and_ls(bench: Bench, registry: str, image: str) -> float:
    command, point = bench.kernel_mount_command(registry, image), Path(tempfile.mkdtemp(dir=bench.scratch))

    def work() -> None:
        run([*command, point])
        run(["ls", point])

    seconds = timed(work)
    run(["umount", point])
    return seconds


def _podman_mount_and_ls(bench: Bench, registry: str, image: str) -> float:
    storage = bench.pulled(registry, image)
    seconds = timed(lambda: run(["ls", Podman().mount(registry, image, storage)]))
    Podman().unmount(storage)
    return seconds


def sequential(bench: Bench) -> list[Row]:
    """a cached file of 1 GiB, read from one end to the other after the page cache was dropped"""
    registry, image = bench.images.registry.address, bench.images.big()
    row = Row("sequential read of a cached 1 GiB file, cold page cache", "MB/s", more_is_better=True)
    for column in bench.columns():
        with bench.rootfs(column, registry, image) as root:
            row.values[column] = max(_read_speed(root / "big") for _ in range(TIMES))
    row.goal = 0.8 * row.values[EXT4]
    row.note = f"goal: 0.8 of ext4; best of {TIMES}"
    return [row]


def _read_speed(path: Path) -> float:
    """Return the MB/s of one read of the whole file after the page cache was dropped."""
    with open(path, "rb", buffering=0) as file:  # open, so that what opening costs is not measured
        drop_page_cache()
        seconds = timed(lambda: run(["dd", f"if=/proc/{os.getpid()}/fd/{file.fileno()}", "of=/dev/null", "bs=1M"]))
    return path.stat().st_size / seconds / 1e6


def archive(bench: Bench) -> list[Row]:
    """every byte of the large image's rootfs through tar: names forgotten, again, and all forgotten"""
    registry, image = bench.images.science()
    first = Row("tar of all of rootfs, names forgotten", "s")
    again = Row("  again", "s")
    nothing = Row("  all forgotten", "s")
    _read_all(bench, registry, image, _time_of_tar, first, again, nothing)
    for row in (first, again):
        row.goal = 1.5 * row.values[EXT4]
        row.limit(KERNEL_MOUNT, to=EXT4, times=1.25)
    first.note = f"goal: 1.5 times ext4, of regfs mount 1.25; a fresh mount each; {LEAST}"
    return [first, again, nothing]


def _time_of_tar(root: Path) -> float:
    # Through a pipe: GNU tar reads nothing when it writes to /dev/null itself.
    return timed(lambda: run(["sh", "-c", f"tar -C '{root}' -cf - . | cat > /dev/null"]))


# Runs in a process of its own, so that what is measured is not slowed by the bench's own threads.
_LOOKUPS = """
import os, sys, time
root, names = os.fsencode(sys.argv[1]), sys.stdin.buffer.read().split()
os.chdir(root)
begun = time.perf_counter()
for _ in names:
    os.statvfs(".")
start = time.perf_counter()
for name in names:
    os.stat(name)
looked = time.perf_counter()
for name in names:
    descriptor = os.open(name, os.O_RDONLY)
    assert len(os.read(descriptor, 4096)) == 4096
    os.close(descriptor)
opened = time.perf_counter()
for name in names:
    descriptor = os.open(name, os.O_RDONLY)
    os.read(descriptor, 4096)
    os.close(descriptor)
again = time.perf_counter()
print(*(seconds / len(names) * 1e6 for seconds in (start - begun, looked - start, opened - looked, again - opened)))
"""


def lookups(bench: Bench) -> list[Row]:
    """one look-up, names forgotten; open, read and close of a file of 4 KiB; and a question to which all is known"""
    registry, image = bench.images.registry.address, bench.images.small()
    question = Row("statfs: what asking takes on this machine", "µs")
    look = Row("look-up of a path, names forgotten", "µs", goal=25)
    opening = Row("  then open+read+close of a 4 KiB file", "µs", goal=35)
    again = Row("  again", "µs", goal=35)
    names = list(small_names())
    random.Random(3).shuffle(names)
    for number in range(1 + TIMES):
        for column in bench.columns():
            with bench.rootfs(column, registry, image) as root:
                forget_names()
                command = [sys.executable, "-S", "-c", _LOOKUPS, str(root)]
                done = subprocess.run(command, input=" ".join(names).encode(), capture_output=True, check=True)
            if number:  # the first round brings what is on the disk into the page cache
                for row, value in zip((question, look, opening, again), map(float, done.stdout.split()), strict=True):
                    keep_least(row.values, column, value)
    for row in (look, opening):
        row.limit(KERNEL_MOUNT, to=EXT4, times=1.5)
    look.note = f"goal of regfs mount: 1.5 times ext4; a fresh mount each; {LEAST}"
    return [question, look, opening, again]


def million(bench: Bench) -> list[Row]:
    """an image of a million files: making its index, find over it, memory with it open; its EROFS image"""
    registry, image = bench.images.registry.address, bench.images.million()
    index = Row("a million files: mount to first ls rootfs, cold", "s", goal=60)
    walk = Row("  find over them, first", "s", goal=10)
    memory = Row("  resident memory of all regfs processes after that", "MB", goal=150)
    peak_memory = Row("  at most, while the index was made", "MB")
    for driver in bench.drivers:
        mount = bench.mounted(driver, registry)
        with memory_of(mount.processes) as peak:
            index.values[driver] = mount_and_run(mount, "ls", bench.path(mount, image) / "rootfs")
        peak_memory.values[driver] = peak.pss / 1e6
        walk.values[driver] = _time_of_find(bench.path(mount, image) / "rootfs")
        memory.values[driver] = rss_of(mount.processes()) / 1e6
        mount.unmount()
        shutil.rmtree(mount.cache, ignore_errors=True)
    rows = [index, walk, memory, peak_memory]
    return [*rows, *_million_by_kernel(bench, registry, image, walk)] if KERNEL_MOUNT in bench.columns() else rows


def _million_by_kernel(bench: Bench, registry: str, image: str, walk: Row) -> list[Row]:
    """Return the rows about the EROFS image of a million names, and put into *walk* how long find takes over it."""
    written = Row("  mount of the known image, its EROFS image not written yet", "s")
    size = Row("  size of its EROFS image", "MB")
    written.goals[KERNEL_MOUNT], size.goals[KERNEL_MOUNT], walk.goals[KERNEL_MOUNT] = 8, 100, 6
    command, point = bench.kernel_mount_command(registry, image), Path(tempfile.mkdtemp(dir=bench.scratch))
    for _ in range(TIMES):
        for path in bench.kernel_mount_cache(image).glob("images/*.erofs"):
            path.unlink()
        keep_least(written.values, KERNEL_MOUNT, timed(lambda: run([*command, point])))
        keep_least(walk.values, KERNEL_MOUNT, _time_of_find(point))
        run(["umount", point])
    (path,) = bench.kernel_mount_cache(image).glob("images/*.erofs")
    size.values[KERNEL_MOUNT] = path.stat().st_size / 1e6
    written.note = f"regfs mount: {LEAST}"
    return [written, size]


_RANDOM_READS = """
import os, random, sys
os.chdir(sys.argv[1])
names, chance = sys.stdin.read().split("\\n"), random.Random(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    descriptor = os.open(chance.choice(names), os.O_RDONLY)
    os.read(descriptor, 65536)
    os.close(descriptor)
"""


def clients(bench: Bench) -> list[Row]:
    """one client, then four at once, that open and read random files"""
    registry, image = bench.images.registry.address, bench.images.small()
    one = Row("random files opened and read, 1 client", "/s", more_is_better=True)
    four = Row(f"  {CLIENTS} clients together", "/s", more_is_better=True)
    names = "\n".join(small_names())

    def rate(rootfs: Path, number: int) -> float:
        def client(seed: int) -> None:
            command = [sys.executable, "-S", "-c", _RANDOM_READS, str(rootfs), str(seed), str(READS_EACH)]
            subprocess.run(command, input=names, text=True, check=True)

        with ThreadPoolExecutor(number) as pool:
            seconds = timed(lambda: list(pool.map(client, range(number))))
        return number * READS_EACH / seconds

    for column in bench.columns():
        with bench.rootfs(column, registry, image) as root:
            one.values[column], four.values[column] = rate(root, 1), rate(root, CLIENTS)
    return [one, four]
