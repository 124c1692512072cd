"""The workload of a mount that outlives its daemons. Used by workloads.py."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measure import Row, pss_of
from tests.support.mounted import Mounted, is_holder, regfs_command
from tests.support.restart_load import RestartLoad, await_holder, kill_at_random

if TYPE_CHECKING:
    from tests.bench.bench import Bench

_TIMES = 100
_FILES = 2000
# A second between two kills: a daemon that has just begun is killed too, and one that has settled.
_MOST_S = 2.0


def restarts(bench: Bench) -> list[Row]:
    """100 `regfs restart`, and 100 kill -9, under 4 readers that hash a rootfs and a program that runs from it"""
    registry, image = bench.images.science()
    if "kernel" not in bench.drivers:
        return []
    longest = Row("the longest read over 100 regfs restart, 4 readers and a program", "s", goal=2)
    faults = Row("  errors and wrong bytes", "", goal=0)
    killed = Row("the longest read over 100 kill -9", "s", goal=2)
    killed_faults = Row("  errors and wrong bytes", "", goal=0)
    memory = Row("  memory of the holder", "MB", goal=6)
    with bench.mounted("kernel", registry, cache=bench.warm_cache("kernel", registry, image)) as mount:
        rootfs = bench.path(mount, image) / "rootfs"
        files = _hashes(rootfs)
        await_holder(mount.path)
        memory.values["kernel"] = pss_of([pid for pid in mount.processes() if is_holder(pid)]) / 1e6
        for row, errors, is_kill in ((longest, faults, False), (killed, killed_faults, True)):
            program: list[str | Path] = [
                "chroot",
                rootfs,
                "python3",
                "-c",
                "import json\nwhile True: open('/etc/passwd').read()",
            ]
            with RestartLoad(rootfs, files, program=program) as load:
                for number in range(_TIMES):
                    _end(mount, number, is_kill=is_kill)
            row.values["kernel"], errors.values["kernel"] = load.seen.longest_s, len(load.seen.faults)
            row.note = f"{load.seen.files} files read"
            bench.notes += [f"restarts failed: {fault}" for fault in load.seen.faults[:5]]
    return [longest, faults, killed, killed_faults, memory]


def _end(mount: Mounted, number: int, *, is_kill: bool) -> None:
    if is_kill:
        kill_at_random(mount.path, 1, most_s=_MOST_S, seed=number)
    else:
        mount.run(*regfs_command(), "restart", mount.path)


def _hashes(rootfs: Path) -> dict[str, str]:
    """Return sha256 by path of some of the files."""
    paths = [os.path.join(at, name) for at, _, names in os.walk(rootfs) for name in names]
    paths = [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]
    random.Random(1).shuffle(paths)
    return {
        os.path.relpath(path, rootfs): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths[:_FILES]
    }
