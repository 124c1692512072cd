"""The workloads. Each takes the Bench and returns rows; the docstring's first line is what --help shows."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.budget import rows as budget_rows
from tests.bench.images import BenchImages, small_names
from tests.bench.measure import Row, drop_page_cache, keep_least, memory_of, rss_of, run, timed
from tests.bench.peers import PEERS, Peer, PodmanRun, SkopeoUmoci
from tests.bench.slow_line import IMPORT, slow_line
from tests.support.erofs import missing as missing_for_kernel_mount
from tests.support.mounted import Mounted, mounts_at, regfs_command
from tests.support.shaping_proxy import ShapingProxy

MIB = 1 << 20
CLIENTS, READS_EACH = 4, 4000
# How often regfs and each peer do what takes at most seconds.
TIMES = 3
LEAST = f"least of {TIMES}"
KERNEL_MOUNT = "regfs mount"
"""The column of what the kernel serves by itself."""
RUN, RUN_BY_FUSE = "regfs run", "regfs run --fuse"
"""The columns of `regfs run`: the image's files served by the kernel, and by FUSE."""


@dataclass(slots=True)
class Bench:
    """What workloads share: images, the drivers and peers to measure, a scratch directory, and what was unpacked."""

    images: BenchImages
    drivers: tuple[str, ...]
    scratch: Path
    notes: list[str] = field(default_factory=list)
    _unpacked: dict[str, Path] = field(default_factory=dict)
    _mounts: list[Mounted] = field(default_factory=list)

    def peers(self) -> list[Peer]:
        """Return the peers that run here; why the others do not is noted once."""
        able = []
        for peer in PEERS:
            if reason := peer.why_not():
                note = f"{peer.name} is left out: {reason}"
                if note not in self.notes:
                    self.notes.append(note)
            else:
                able.append(peer)
        return able

    def mounted(self, driver: str, registry: str, *, cache: Path | None = None, options: Sequence[str] = ()) -> Mounted:
        """Return a mount that is not mounted yet, with an empty cache of its own unless *cache* is given."""
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        fixed = ["--driver", driver, "--default-registry", registry, "--cache-size", "40GiB"]
        mount = Mounted(directory, options=[*fixed, *options], cache=cache, preloaded_runs=False)
        self._mounts.append(mount)
        return mount

    @contextmanager
    def kernel_mount(self, registry: str, image: str) -> Iterator[Path | None]:
        """Yield where `regfs mount` has mounted *image*, all of which is in its cache; None where the kernel cannot."""
        if reason := missing_for_kernel_mount():
            if (note := f"{KERNEL_MOUNT} is left out: {reason}") not in self.notes:
                self.notes.append(note)
            yield None
            return
        point = Path(tempfile.mkdtemp(dir=self.scratch))
        run([*self.kernel_mount_command(registry, image), point])
        try:
            yield point
        finally:
            run(["umount", point])

    def kernel_mount_command(self, registry: str, image: str) -> list[str]:
        """Return the command that mounts *image*, but for the mount point; all that it needs is in its cache."""
        cache = self.scratch / f"warm-mount-{image.replace('/', '_').replace(':', '_')}"
        command = [*regfs_command(), "mount", "-q", "--cache-dir", str(cache), "--cache-size", "40GiB"]
        command.append(f"{registry}/{image}")
        if not cache.exists():
            point = tempfile.mkdtemp(dir=self.scratch)
            run([*command, point])
            run(["umount", point])
        return command

    def clean_up(self) -> None:
        """Unmount what a workload that broke off has left."""
        for mount in self._mounts:
            if mounts_at(mount.path) or mount.processes():
                mount.clean_up()

    def path(self, mount: Mounted, image: str) -> Path:
        """Return the image's directory in a mount."""
        return mount.path / image.replace(":", "/")

    def warm_cache(self, driver: str, registry: str, image: str) -> Path:
        """Return a cache directory that has all of *image*."""
        cache = self.scratch / f"warm-{driver}-{image.replace('/', '_').replace(':', '_')}"
        if not cache.exists():
            with self.mounted(driver, registry, cache=cache) as mount:
                run(["find", self.path(mount, image) / "rootfs", "-maxdepth", "1"])
        return cache

    def on_disk(self, registry: str, image: str) -> Path:
        """Return the image unpacked on this machine's disk: the native file system that regfs is compared with."""
        if image not in self._unpacked:
            directory = Path(tempfile.mkdtemp(dir=self.scratch))
            self._unpacked[image] = SkopeoUmoci().rootfs(registry, image, directory)
        return self._unpacked[image]

    @contextmanager
    def fetched(self, peer: Peer, registry: str, image: str) -> Iterator[Callable[[], Path]]:
        """Yield a function that fetches *image* with *peer*; what it made is removed afterwards."""
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            yield lambda: peer.rootfs(registry, image, directory)
        finally:
            peer.clean_up(directory)
            shutil.rmtree(directory, ignore_errors=True)


def _mount_and_run(mount: Mounted, *command: str | Path) -> float:
    """Return the seconds from the start of regfs to the end of *command*."""

    def work() -> None:
        mount.mount()
        run(command)

    return timed(work)


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
            keep_least(row.values, driver, _mount_and_run(mount, "chroot", rootfs, "/hello"))
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
            row.values[driver] = _mount_and_run(mount, "chroot", rootfs, *IMPORT)
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
                    keep_least(row.values, driver, _mount_and_run(mount, "ls", rootfs))
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
        fetched = Row("  fetched for it", "MB", goal=6)
        for driver in bench.drivers:
            for _ in range(TIMES):
                mount = bench.mounted(driver, bench.images.registry.address)
                keep_least(row.values, driver, _mount_and_run(mount, "ls", bench.path(mount, image) / "rootfs"))
                keep_least(fetched.values, driver, mount.stats()["registry.bytes"] / 1e6)
                mount.unmount()
        row.note = f"an empty cache and a fresh mount each; {LEAST}"
        rows += [row, fetched]
    return rows


def find(bench: Bench) -> list[Row]:
    """`find rootfs -printf %s` over the large image: first time in a fresh mount, and again; and an entry's share"""
    registry, image = bench.images.science()
    first = Row("find rootfs -printf %s, index present, first", "s", goal=0.4)
    again = Row("  again", "s", goal=0.15)
    each = Row("  first, per entry", "µs", goal=10)
    native = bench.on_disk(registry, image)
    for _ in range(TIMES):
        for driver in bench.drivers:
            with bench.mounted(driver, registry, cache=bench.warm_cache(driver, registry, image)) as mount:
                rootfs = bench.path(mount, image) / "rootfs"
                os.listdir(rootfs)
                keep_least(first.values, driver, _time_of_find(rootfs))
                keep_least(again.values, driver, _time_of_find(rootfs))
                entries = _find(rootfs)
            each.values[driver] = first.values[driver] / entries * 1e6
        with bench.kernel_mount(registry, image) as point:
            if point is not None:
                keep_least(first.values, KERNEL_MOUNT, _time_of_find(point))
                keep_least(again.values, KERNEL_MOUNT, _time_of_find(point))
        drop_page_cache()
        keep_least(first.values, "ext4", _time_of_find(native))
        keep_least(again.values, "ext4", _time_of_find(native))
    first.note = f"a fresh mount each, of ext4: page cache dropped before; {LEAST}"
    return [first, again, each]


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
    for driver in bench.drivers:
        cache = bench.warm_cache(driver, registry, image)
        best = []
        for _ in range(3):
            mount = bench.mounted(driver, registry, cache=cache)
            best.append(_mount_and_run(mount, "ls", bench.path(mount, image) / "rootfs"))
            idle.values[driver] = rss_of(mount.processes()) / 1e6
            mount.unmount()
        row.values[driver] = min(best)
    if not missing_for_kernel_mount():
        command, point = bench.kernel_mount_command(registry, image), Path(tempfile.mkdtemp(dir=bench.scratch))
        for _ in range(3):
            keep_least(row.values, KERNEL_MOUNT, _command_and_ls(command, point))
            run(["umount", point])
    row.note = "least of 3"
    return [row, idle]


def _command_and_ls(command: Sequence[str], point: Path) -> float:
    """Return the seconds from the start of *command*, which mounts on *point*, to the first answer of ls."""

    def work() -> None:
        run([*command, point])
        run(["ls", point])

    return timed(work)


def sequential(bench: Bench) -> list[Row]:
    """a cached file of 1 GiB, read from one end to the other after the page cache was dropped"""
    registry, image = bench.images.registry.address, bench.images.big()
    row = Row("sequential read of a cached 1 GiB file, cold page cache", "MB/s", more_is_better=True)
    native = bench.on_disk(registry, image) / "big"
    for driver in bench.drivers:
        with bench.mounted(driver, registry, cache=bench.warm_cache(driver, registry, image)) as mount:
            row.values[driver] = _read_speed(bench.path(mount, image) / "rootfs/big")
    with bench.kernel_mount(registry, image) as point:
        if point is not None:
            row.values[KERNEL_MOUNT] = _read_speed(point / "big")
    row.values["ext4"] = _read_speed(native)
    row.goal = 0.8 * row.values["ext4"]
    row.note = "goal: 0.8 of ext4; best of 3"
    return [row]


def _read_speed(path: Path) -> float:
    speeds = []
    for _ in range(3):
        with open(path, "rb", buffering=0) as file:  # open, so that what opening costs is not measured
            drop_page_cache()
            seconds = _time_of_copy(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        speeds.append(path.stat().st_size / seconds / 1e6)
    return max(speeds)


def _time_of_copy(source: str) -> float:
    return timed(lambda: run(["dd", f"if={source}", "of=/dev/null", "bs=1M"]))


def archive(bench: Bench) -> list[Row]:
    """every byte of the large image's rootfs through tar, warm disk cache"""
    registry, image = bench.images.science()
    row = Row("tar of all of rootfs, warm disk cache", "s")
    native = bench.on_disk(registry, image)
    _tar(native)
    for driver in bench.drivers:
        cache = bench.warm_cache(driver, registry, image)
        # The first one brings what the cache has on disk into memory.
        seconds = [_tar_of_fresh_mount(bench, driver, cache) for _ in range(1 + TIMES)]
        row.values[driver] = min(seconds[1:])
    for number in range(1 + TIMES):
        with bench.kernel_mount(registry, image) as point:
            if point is not None:
                least = _time_of_tar(point)
                if number:
                    keep_least(row.values, KERNEL_MOUNT, least)
    row.values["ext4"] = min(timed(lambda: _tar(native)) for _ in range(TIMES))
    row.goal = 1.5 * row.values["ext4"]
    row.note = f"goal: 1.5 times ext4; a fresh mount each; {LEAST}"
    return [row]


def _tar_of_fresh_mount(bench: Bench, driver: str, cache: Path) -> float:
    registry, image = bench.images.science()
    with bench.mounted(driver, registry, cache=cache) as mount:
        rootfs = bench.path(mount, image) / "rootfs"
        return _time_of_tar(rootfs)


def _time_of_tar(root: Path) -> float:
    return timed(lambda: _tar(root))


def _tar(root: Path) -> None:
    # Through a pipe: GNU tar reads nothing when it writes to /dev/null itself.
    run(["sh", "-c", f"tar -C '{root}' -cf - . | cat > /dev/null"])


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
    """one look-up in a fresh mount; open, read and close of a file of 4 KiB; and a question to which all is known"""
    registry, image = bench.images.registry.address, bench.images.small()
    question = Row("statfs: what asking takes on this machine", "µs")
    look = Row("look-up of a path in a fresh mount", "µs", goal=25)
    opening = Row("open+read+close of a 4 KiB file, first", "µs", goal=35)
    again = Row("  again", "µs", goal=35)
    names = list(small_names())
    random.Random(3).shuffle(names)

    def measure(column: str, rootfs: Path) -> None:
        command = [sys.executable, "-S", "-c", _LOOKUPS, str(rootfs)]
        done = subprocess.run(command, input=" ".join(names).encode(), capture_output=True, check=True)
        for row, value in zip((question, look, opening, again), map(float, done.stdout.split()), strict=True):
            keep_least(row.values, column, value)

    native = bench.on_disk(registry, image)
    for _ in range(TIMES):
        for driver in bench.drivers:
            with bench.mounted(driver, registry, cache=bench.warm_cache(driver, registry, image)) as mount:
                measure(driver, bench.path(mount, image) / "rootfs")
        with bench.kernel_mount(registry, image) as point:
            if point is not None:
                measure(KERNEL_MOUNT, point)
        measure("ext4", native)
    look.note = f"ext4 has them in memory; {LEAST}"
    return [question, look, opening, again]


def million(bench: Bench) -> list[Row]:
    """an image of a million files: making its index, find over it, memory with it open"""
    registry, image = bench.images.registry.address, bench.images.million()
    index = Row("a million files: mount to first ls rootfs, cold", "s", goal=60)
    walk = Row("  find over them", "s", goal=10)
    memory = Row("  resident memory of all regfs processes after that", "MB", goal=150)
    peak_memory = Row("  at most, while the index was made", "MB")
    for driver in bench.drivers:
        mount = bench.mounted(driver, registry)
        with memory_of(mount.processes) as peak:
            index.values[driver] = _mount_and_run(mount, "ls", bench.path(mount, image) / "rootfs")
        peak_memory.values[driver] = peak.pss / 1e6
        walk.values[driver] = _time_of_find(bench.path(mount, image) / "rootfs")
        memory.values[driver] = rss_of(mount.processes()) / 1e6
        mount.unmount()
        shutil.rmtree(mount.cache, ignore_errors=True)
    return [index, walk, memory, peak_memory]


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

    for driver in bench.drivers:
        with bench.mounted(driver, registry, cache=bench.warm_cache(driver, registry, image)) as mount:
            rootfs = bench.path(mount, image) / "rootfs"
            one.values[driver] = rate(rootfs, 1)
            four.values[driver] = rate(rootfs, CLIENTS)
    native = bench.on_disk(registry, image)
    one.values["ext4"], four.values["ext4"] = rate(native, 1), rate(native, CLIENTS)
    return [one, four]


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
        slow_line,
        find,
        remount,
        sequential,
        archive,
        lookups,
        million,
        clients,
        budget,
    )
}
