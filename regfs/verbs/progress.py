"""Progress of long verbs: bars on a terminal, otherwise a line every few seconds. Only on stderr.

Used by the verbs. A separate thread reads the progress; the working threads only count.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regfs.model.units import in_units

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_BAR_EVERY_S = 0.1
_FIRST_BAR_S = 0.3
# Seconds until the first line where there is no terminal.
_FIRST_LINE_S = 2.0
_LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """One transfer: *done* of *total* bytes (total 0: not known yet)."""

    text: str
    done: int
    total: int


@contextmanager
def showing(
    steps: Callable[[], list[Step]], *, say: Callable[[str], None], environment: Mapping[str, str]
) -> Iterator[None]:
    """Show what *steps* returns while the block runs; *say* prints a line where there is no terminal for bars."""
    ended = threading.Event()
    show = _bars if _has_bars(environment) else _lines
    thread = threading.Thread(target=show, args=(steps, ended, say), name="regfs-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def in_words(seconds: float) -> str:
    """Return a time for people, in its two biggest units: 3 d 4 h."""
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(int(seconds), length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _has_bars(environment: Mapping[str, str]) -> bool:
    return sys.stderr.isatty() and environment.get("TERM", "dumb") != "dumb" and not environment.get("CI")


def _lines(steps: Callable[[], list[Step]], ended: threading.Event, say: Callable[[str], None]) -> None:
    pause_s = _FIRST_LINE_S
    while not ended.wait(pause_s):
        pause_s = _LINE_EVERY_S
        for step in steps():
            of = f" of {in_units(step.total)}" if step.total else ""
            say(f"{step.text}: {in_units(step.done)}{of}")


def _bars(steps: Callable[[], list[Step]], ended: threading.Event, say: Callable[[str], None]) -> None:
    del say
    if ended.wait(_FIRST_BAR_S):
        return  # loading rich would have taken longer
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """The speed, in the same units as the size beside it; the column of rich has MB/s."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{in_units(speed)}/s", style="progress.data.speed")

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), Speed())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        while True:
            _update(bars, tasks, steps())
            if ended.wait(_BAR_EVERY_S):
                return


def _update(bars: Progress, tasks: dict[str, TaskID], steps: list[Step]) -> None:
    for step in steps:
        if step.text not in tasks:
            tasks[step.text] = bars.add_task(step.text, total=step.total or None)
        bars.update(tasks[step.text], completed=step.done, total=step.total or None)
    for gone in set(tasks) - {step.text for step in steps}:
        bars.update(tasks[gone], visible=False)


class Count:
    """A number of bytes that one thread adds to and others read."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, size: int) -> None:
        """Count *size* bytes more."""
        self.size += size
