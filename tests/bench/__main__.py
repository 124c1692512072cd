"""Runs the workloads and prints the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from regfs import __version__
from tests.bench.bench import EXT4, KERNEL_MOUNT, PODMAN, Bench
from tests.bench.comparison import DIFF
from tests.bench.images import BenchImages, bench_directory
from tests.bench.measure import Row
from tests.bench.peers import StargzStore
from tests.bench.workloads import RUN, RUN_BY_FUSE, WORKLOADS
from tests.support.registry import is_installed

DRIVERS = ("kernel", "fusepy")
OWN_COLUMNS = (*DRIVERS, KERNEL_MOUNT, RUN, RUN_BY_FUSE, DIFF)
PEER_COLUMNS = ("skopeo+umoci", PODMAN, StargzStore.name, EXT4)


def parse_arguments() -> argparse.Namespace:
    described = "\n".join(f"  {name:<12} {work.__doc__}" for name, work in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"{__doc__}\nworkloads:\n{described}",
        epilog="BENCH_REGISTRY=host:port BENCH_IMAGE=repository:tag measure an image of yours, with numpy in it "
        "(BENCH_ESTARGZ=repository:tag, the same as eStargz); "
        "REGFS_BENCH_DIR is where the images that are made stay.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--driver", choices=(*DRIVERS, "both"), default="both")
    parser.add_argument("--only", action="append", choices=tuple(WORKLOADS), help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    return parser.parse_args()


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def ratio(row: Row, column: str) -> str:
    """Return how many times better the first of our columns is than what stands in *column*."""
    ours = next((row.values[name] for name in OWN_COLUMNS if name in row.values), None)
    theirs = row.values.get(column)
    if not ours or not theirs:
        return ""
    times = ours / theirs if row.more_is_better else theirs / ours
    return f" ({times:.2g}x)" if times < 100 else f" ({times:.0f}x)"


def goals(row: Row) -> dict[str, float]:
    """Return the goals of the columns that were measured; the first of ours comes first."""
    first = next((name for name in OWN_COLUMNS if name in row.values), None)
    found = {} if row.goal is None or first is None else {first: row.goal}
    return found | {name: goal for name, goal in row.goals.items() if name in row.values}


def goal_shown(row: Row) -> str:
    """Return the goals, all but the first with the names of their columns."""
    sign = "≥" if row.more_is_better else "≤"
    names = ["" if goal is row.goal else f"{name} " for name, goal in goals(row).items()]
    return "; ".join(f"{name}{sign} {number(goal)}" for name, goal in zip(names, goals(row).values(), strict=True))


def verdict(row: Row) -> str:
    met = [
        row.values[name] >= goal if row.more_is_better else row.values[name] <= goal
        for name, goal in goals(row).items()
    ]
    return "; ".join("met" if each else "MISSED" for each in met)


def print_table(rows: list[Row]) -> None:
    columns = [name for name in (*OWN_COLUMNS, *PEER_COLUMNS) if any(name in row.values for row in rows)]
    lines = [["workload", "unit", *columns, "goal", ""]]
    for row in rows:
        cells = [number(row.values.get(name)) + (ratio(row, name) if name in PEER_COLUMNS else "") for name in columns]
        lines.append([row.workload, row.unit, *cells, goal_shown(row), verdict(row)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) if place < 2 else cell.rjust(width)
                        for place, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip())  # fmt: skip
    print("(…x): how many times better the first column is than that one. A goal without a name is the first column's.")
    for row in rows:
        if row.note:
            print(f"{row.workload.strip()}: {row.note}")


def measure(bench: Bench, name: str) -> list[Row]:
    """Return the rows of a workload; one that fails is noted, so that it does not cost the others' numbers."""
    start = time.monotonic()
    print(f"{name} …", end=" ", flush=True)
    try:
        rows = WORKLOADS[name](bench)
    except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as error:
        print(f"FAILED: {error}", flush=True)
        bench.notes.append(f"{name} failed: {str(error)[:300]}")
        return []
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    return rows


def main() -> int:
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C: nothing stays mounted, and the table is shown
    arguments = parse_arguments()
    if not is_installed():
        sys.exit("docker-registry is not installed: apt-get install docker-registry")
    if os.getuid() != 0:
        sys.exit("the bench drops page caches and changes root: run it as root")
    drivers = DRIVERS if arguments.driver == "both" else (arguments.driver,)
    rows: list[Row] = []
    print(
        f"regfs {__version__}, Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
    )
    with BenchImages(bench_directory()) as images, tempfile.TemporaryDirectory(prefix="regfs-bench-") as scratch:
        bench = Bench(images, drivers, Path(scratch))
        try:
            for name in arguments.only or WORKLOADS:
                rows += measure(bench, name)
        except KeyboardInterrupt:
            bench.notes.append(f"{name} failed: broken off, and what comes after it too")
        finally:
            bench.clean_up()
    print()
    print_table(rows)
    for note in bench.notes:
        print(note)
    if arguments.json:
        arguments.json.write_text(json.dumps({row.workload.strip(): row.values for row in rows}, indent=1))
    return 1 if any("failed" in note for note in bench.notes) else 0


if __name__ == "__main__":
    sys.exit(main())
