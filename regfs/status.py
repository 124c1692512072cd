"""`regfs status`: what mounts are doing, read from their own `.regfs/`; cli.py prints it.

A mount whose daemon is dead or stuck is told as such after some seconds: it is read in a process of its own, because a
read(2) from a stuck FUSE mount cannot be given up.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints
from regfs.progress import Step, in_units, showing

_KIND = "fuse.regfs"
_ANSWERS_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.2
_SHOWN = {
    "registry.requests": "requests to registries",
    "registry.bytes": "bytes from registries",
    "layers.passes": "layers unpacked",
    "errors": "failures",
    "bugs": "bugs",
}


@dataclass(frozen=True, slots=True)
class Status:
    """What one mount says of itself. *state* is `alive` or the reason why nothing more is known."""

    mountpoint: str
    source: str
    state: str
    version: str = ""
    counters: Mapping[str, float] | None = None
    fetching: Sequence[Mapping[str, object]] = ()

    def as_json(self) -> dict[str, object]:
        """Return the contract for programs: numbers in bytes and counts."""
        return {
            "mountpoint": self.mountpoint,
            "source": self.source,
            "state": self.state,
            "version": self.version,
            "counters": dict(self.counters or {}),
            "fetching": [dict(each) for each in self.fetching],
        }

    def lines(self) -> Iterator[str]:
        """Yield what people read; it may change from release to release."""
        yield f"{self.mountpoint}: {self.source}, {self.state}{f', {self.version}' if self.version else ''}"
        for name, text in _SHOWN.items():
            value = (self.counters or {}).get(name, 0)
            if value:
                yield f"  {text}: {in_units(value) if name.endswith('.bytes') else f'{value:g}'}"
        for step in self.steps():
            yield f"  {step.text}: {in_units(step.done)} of {in_units(step.total)}"

    def steps(self) -> list[Step]:
        """Return what is being fetched."""
        return [
            Step(f"{each['origin']} {str(each['digest'])[:19]}", _number(each["received"]), _number(each["size"]))
            for each in self.fetching
        ]


def find(wanted: Sequence[str]) -> list[Status]:
    """Return the status of the mounts on *wanted*, or of all mounts of regfs. Raises MountFailure for what is none."""
    there = {mounted.mountpoint: mounted for mounted in mountpoints.mounts() if mounted.kind == _KIND}
    points = [mountpoints.resolved(path) for path in wanted] or list(there)
    for point in points:
        if point not in there:
            raise MountFailure(f"no regfs is mounted on {point}")
    return [read(there[point]) for point in points]


def read(mounted: mountpoints.Mounted) -> Status:
    """Return what the daemon of *mounted* tells, within seconds whatever state it is in."""
    # `head` of three files: one small process, and the only one that can be left behind by a stuck daemon.
    names = ("version", "stats.json", "fetching.json")
    command = ["head", "-c", "1000000", "--", *(os.path.join(mounted.mountpoint, ".regfs", name) for name in names)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            answer, complaint = process.communicate(timeout=_ANSWERS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return Status(mounted.mountpoint, mounted.source, "does not answer")
    if process.returncode:
        dead = "not connected" in complaint
        reason = "dead: regfs umount takes it away" if dead else complaint.strip().rpartition(": ")[2]
        return Status(mounted.mountpoint, mounted.source, reason)
    version, counters, fetching = (part.partition("\n")[2] for part in answer.split("==> ")[1:])
    return Status(
        mounted.mountpoint, mounted.source, "alive", version.strip(), json.loads(counters), json.loads(fetching)
    )


def watch(status: Status, *, say: Callable[[str], None], environment: Mapping[str, str]) -> None:
    """Show bars until the mount of *status* fetches nothing any more. Ctrl-C ends it too."""
    import threading

    pause = threading.Event()
    latest = [status]
    with showing(lambda: latest[0].steps(), say=say, environment=environment):
        while latest[0].fetching:
            pause.wait(_LOOK_EVERY_S)
            latest[0] = find([status.mountpoint])[0]


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
