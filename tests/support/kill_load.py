"""Kills a daemon, and the verbs beside it, at random instants of passes, reads, evictions and hand-overs.

    with kill_load_images() as images:
        print(kill_at_random(directory, images, kills=300))

Every second mount is held: up to four times its daemon, the one that takes over, or both processes one after the other
are killed below readers that must notice nothing. Every mount ends by a kill of all at once. The small cache is then
looked at as the next start finds it: every byte that is read is right, every file is what its name says, and in the
end nothing is left that nothing can reach. Thread rule: one thread calls.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from regfs.store.eviction.inventory import KINDS, take_inventory
from regfs.store.verify import verify
from tests.support.images import layer
from tests.support.lazy_layers import estargz, zstd_chunked
from tests.support.mounted import (
    Mounted,
    environment_for,
    is_holder,
    mounts_at,
    processes_naming,
    regfs_command,
    wait_for_exit,
    with_descendants,
)
from tests.support.restart_load import await_holder
from tests.support.small_budget import FILES, ManyImages, many_images

MIB = 1 << 20
_READERS = 3
_LONGEST_S, _LONGEST_TO_HAND_OVER_S = 1.5, 1.0
_VERBS_IN = 3
_MOST_HAND_OVERS = 4
_OF_THE_CACHE = frozenset({"blobs", "objects", "layers", "images", "ingests", "passes"})


@dataclass(slots=True)
class Killed:
    """What came of the kills: how many, reads, wrong reads, what the next start found wrong, bytes left after prune.

    *hand_overs* of the kills were followed by another daemon of the same mount.
    """

    kills: int = 0
    hand_overs: int = 0
    reads: int = 0
    failed_reads: int = 0
    wrong: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    leaked: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.hand_overs} below a mount that goes on), {self.reads} reads"
            f" ({self.failed_reads} cut off by a kill), {len(self.wrong)} wrong,"
            f" {len(self.unusable)} caches with something wrong, {self.leaked} bytes left after prune"
        )


@contextmanager
def kill_load_images(count: int = 12, size: int = 2 * MIB) -> Iterator[ManyImages]:
    """Yield images that are read whole and chunk by chunk."""
    builders = (
        partial(layer, compression="none"),
        layer,
        partial(estargz, chunk_size=100_000),
        partial(zstd_chunked, chunk_size=100_000),
    )
    with many_images(count, size=size, builders=builders) as images:
        yield images


def kill_at_random(
    directory: Path, images: ManyImages, *, kills: int, driver: str = "kernel", limit: int = 8 * MIB, seed: int = 1
) -> Killed:
    """Mount, read, evict and kill, *kills* times in all, with one cache of *limit* bytes."""
    killed, chance = Killed(), random.Random(seed)
    options = ["--driver", driver, "--default-registry", images.address, "--cache-size", f"{limit >> 10}K"]
    number = 0
    while killed.kills < kills:
        number += 1
        is_held = driver == "kernel" and number % 2 == 0
        mount = Mounted(directory, options=options + ["--no-restart"] * (not is_held), name=f"reg{number % 7}")
        mount.mount()
        try:
            most = min(_MOST_HAND_OVERS, kills - killed.kills - 1) if is_held else 0
            _round(mount, images, chance, killed, hand_overs=chance.randint(min(1, most), most))
        finally:
            mount.clean_up()
        killed.unusable += [f"mount {number}: {problem}" for problem in verify(mount.cache, drop=False)]
    _finish(directory, [*options, "--no-restart"], images, killed)
    return killed


def _round(mount: Mounted, images: ManyImages, chance: random.Random, killed: Killed, *, hand_overs: int) -> None:
    ended = threading.Event()
    if hand_overs:
        await_holder(mount.path)
    with ThreadPoolExecutor(_READERS) as pool:
        readers = [
            pool.submit(_read, mount, images, random.Random(chance.random()), ended, killed) for _ in range(_READERS)
        ]
        verb = _verb(mount, chance) if not chance.randrange(_VERBS_IN) else None
        for number in range(hand_overs):
            time.sleep(chance.random() * _LONGEST_TO_HAND_OVER_S)
            _kill_below_readers(mount, chance, with_workers=number == 0)
            killed.kills += 1
            killed.hand_overs += 1
        time.sleep(chance.random() * _LONGEST_S / (1 + hand_overs))
        ended.set()
        _kill(mount, chance)
        killed.kills += 1
        if verb is not None:
            verb.kill()
            verb.wait()
        while mounts_at(mount.path):
            subprocess.run(["umount", "--lazy", str(mount.path)], check=False, capture_output=True)
        for reader in readers:
            reader.result(timeout=120)


def _kill_below_readers(mount: Mounted, chance: random.Random, *, with_workers: bool) -> None:
    """Kill what serves the mount, or is about to, or with *with_workers* a worker; ask for a hand-over now and then.

    A layer whose worker was killed is ingested once more, not twice: it may be the layer that kills.
    """
    if chance.random() < 0.3:
        for holder in filter(is_holder, mount.processes()):
            _signal(holder, signal.SIGRTMIN)
        time.sleep(chance.random() * 0.5)
    # A process that a daemon has just forked has its command line until exec(2), and may be about to be a worker.
    daemons = [pid for pid in processes_naming(f"\0{mount.path}\0") if _leads_session(pid)]
    found = [pid for pid in (mount.processes() if with_workers else daemons) if not is_holder(pid)]
    for pid in found if chance.random() < 0.5 else chance.sample(found, min(1, len(found))):
        _signal(pid, signal.SIGKILL)


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _kill(mount: Mounted, chance: random.Random) -> None:
    """Kill all at once, what holds the mount first; now and then one of the others before."""
    pids = sorted(mount.processes(), key=is_holder, reverse=True)
    first = chance.choice(pids) if pids else 0
    for pid in [first] * (chance.random() < 0.3) + pids:
        _signal(pid, signal.SIGKILL)
    wait_for_exit(with_descendants(pids))


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)


def _verb(mount: Mounted, chance: random.Random) -> subprocess.Popen[bytes]:
    words = chance.choice((["prune", "--to", "1M"], ["prune", "--all"], ["verify"]))
    return subprocess.Popen(
        [*regfs_command(), "cache", *words, "--cache-dir", str(mount.cache)],
        env=environment_for(mount.home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _read(mount: Mounted, images: ManyImages, chance: random.Random, ended: threading.Event, killed: Killed) -> None:
    while not ended.is_set():
        image, number = chance.randrange(images.count), chance.randrange(FILES)
        path = Path(mount.path, f"many/i{image}/v1/rootfs/file{number}")
        content = images.content(image, number)
        start = chance.randrange(len(content))
        size = chance.choice((100, 5000, len(content)))
        try:
            with path.open("rb") as file:
                file.seek(start)
                found = file.read(size)
        except OSError as error:
            killed.failed_reads += 1
            if not ended.is_set():
                killed.wrong.append(f"{path} before the kill: {error}{_errors(mount)}")
            return
        killed.reads += 1
        if found != content[start : start + size]:
            killed.wrong.append(f"{path} at byte {start}")


def _errors(mount: Mounted) -> str:
    """Return what the mount tells of its last failures; the next kill may come first."""
    with suppress(OSError):
        return "\n" + (mount.path / ".regfs/errors").read_text()
    return ""


def _finish(directory: Path, options: list[str], images: ManyImages, killed: Killed) -> None:
    """Read everything once more, and prune all: what is left then belongs to nothing."""
    with Mounted(directory, options=options, name="last") as mount:
        for image in range(images.count):
            for number in range(FILES):
                path = Path(mount.path, f"many/i{image}/v1/rootfs/file{number}")
                if path.read_bytes() != images.content(image, number):
                    killed.wrong.append(str(path))
    mount.run(*regfs_command(), "cache", "prune", "--all", "--cache-dir", mount.cache)
    found = take_inventory(mount.cache)
    killed.leaked = found.size
    if killed.leaked:
        killed.unusable.append(f"left: { {kind: found.counts()[kind] for kind in KINDS} }")
    for kind in _OF_THE_CACHE:
        killed.unusable += [f"left: {path}" for path in (mount.cache / kind).rglob("*") if path.is_file()]
