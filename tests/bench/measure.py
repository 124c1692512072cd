"""Clocks, page caches, memory and the rows of the table."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

Command = Sequence[str | Path]


@dataclass(slots=True)
class Row:
    """One line of the table: *values* by column (a driver or a peer).

    *goal* is what was promised for the first of our columns, *goals* for others.
    """

    workload: str
    unit: str
    values: dict[str, float] = field(default_factory=dict)
    goal: float | None = None
    more_is_better: bool = False
    note: str = ""
    goals: dict[str, float] = field(default_factory=dict)

    def limit(self, column: str, *, to: str, times: float = 1) -> None:
        """Let the goal of *column* be so many *times* what the column *to* has, where both are measured."""
        if column in self.values and to in self.values:
            self.goals[column] = times * self.values[to]


def drop_page_cache() -> None:
    """Make the kernel forget cached pages, names and inodes; only root can."""
    os.sync()
    if os.getuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def forget_names() -> None:
    """Make the kernel forget names, and inodes without cached pages; files stay in the page cache. Needs root."""
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def run(
    command: Command, *, quiet: bool = True, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run *command* and insist on its success."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE if quiet else None, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env=environment, cwd=cwd, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr[-1000:].decode(errors='replace')}"
        )


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that *action* takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def keep_least(values: dict[str, float], column: str, value: float) -> None:
    """Keep *value* in *column* unless a smaller one is there: the least is what the machine disturbed least."""
    values[column] = min(value, values.get(column, value))


def rss_of(pids: Sequence[int]) -> int:
    """Return the resident bytes of all *pids* together; pages that they share count for each of them."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def pss_of(pids: Sequence[int]) -> int:
    """Return the resident bytes of all *pids* together; what they share counts once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total << 10


@dataclass(slots=True)
class Peak:
    """The most memory that was seen, in bytes."""

    pss: int = 0


@contextmanager
def memory_of(pids: Callable[[], list[int]]) -> Iterator[Peak]:
    """Watch the resident memory of *pids* during the block, twenty times a second."""
    peak = Peak()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak.pss = max(peak.pss, pss_of(pids()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.pss = max(peak.pss, pss_of(pids()))
