"""`regfs status`: what mounts are doing, read from their `.regfs/`; the command line prints it.

A daemon that is dead or hangs is reported as such within some seconds (daemon_answers.py).
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from regfs.daemon.self_description import FILE as DAEMON
from regfs.errors import MountFailure
from regfs.model.units import in_units
from regfs.mount import mountpoint as mountpoints
from regfs.mount.daemon_answers import Answer, ask
from regfs.verbs.holders import ends_before
from regfs.verbs.progress import Step, in_words, showing

ALIVE, DEAD, HANGS, OF_ANOTHER_USER, FAILS = "alive", "dead", "does not answer", "of another user", "fails"
_LOOK_EVERY_S = 0.2
_SHOWN = {
    "registry.requests": "requests to registries",
    "registry.bytes": "bytes from registries",
    "layers.ingests": "layers unpacked",
    "cache.damaged": "damaged files of the cache",
    "errors": "failures",
    "bugs": "bugs",
}
_CACHE_KEYS = ("path", "used_bytes", "limit_bytes", "free_bytes", "min_free_bytes", "max_age_s")
# `.regfs/errors` has the details of these.
_TOLD = frozenset({"cache.damaged", "errors", "bugs"})
_ONLY_IF_ANY = frozenset({"bugs", "cache.damaged"})
_REMEDIES = {DEAD: "regfs umount removes it; the log says how its daemon ended", HANGS: "regfs umount --force ends it"}
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one mount, and what its daemon says.

    *state* is one of the words above; *reason* completes FAILS and HANGS.
    """

    mountpoint: str
    source: str
    state: str
    reason: str = ""
    version: str = ""
    daemon: Mapping[str, object] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    fetching: Sequence[Mapping[str, object]] = ()
    by_kernel: str = ""
    """For a mount without a daemon: "read-only" or "writable"."""

    @property
    def is_well(self) -> bool:
        """Whether nothing is known to be wrong. The mount of another user, which cannot be read, is not a failure."""
        return self.state in (ALIVE, OF_ANOTHER_USER)

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints, a contract: bytes, counts and seconds; null for what is not known."""
        return {
            "mountpoint": self.mountpoint,
            "source": self.source,
            "state": self.state,
            "reason": self.reason,
            "version": self.version,
            "pid": self.daemon.get("pid"),
            "uptime_s": self._uptime_s(),
            "driver": "erofs" if self.by_kernel else self.daemon.get("driver"),
            "platform": self.daemon.get("platform"),
            "log": self.daemon.get("log"),
            "restarts": self.daemon.get("restarts"),
            "crashes": self.daemon.get("crashes"),
            "cache": {key: self._cache.get(key) for key in _CACHE_KEYS},
            "counters": dict(self.counters),
            "fetching": [dict(each) for each in self.fetching],
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines that people read; they may change from release to release."""
        if self.by_kernel:
            yield f"{mountpoints.on_one_line(self.mountpoint)}: {self.source}, served by the kernel, {self.by_kernel}"
            return
        said = [self.reason or self.state, self.version, _REMEDIES.get(self.state, "")]
        yield f"{mountpoints.on_one_line(self.mountpoint)}: {self.source}, {', '.join(filter(None, said))}"
        if self.state != ALIVE:
            return
        if self.daemon:
            yield (
                f"  pid {self.daemon.get('pid')}, up {in_words(self._uptime_s() or 0)}, "
                f"driver {self.daemon.get('driver')}, platform {self.daemon.get('platform')}"
            )
            yield f"  cache: {self._cache_line()}"
            yield f"  log: {mountpoints.on_one_line(str(self.daemon.get('log')))}"
            yield from self._restart_lines()
        yield from self._counter_lines()
        for step in self.steps():
            yield f"  {step.text}: {in_units(step.done)} of {in_units(step.total)}"

    def _restart_lines(self) -> Iterator[str]:
        restarts, crashes = _number(self.daemon.get("restarts")), _number(self.daemon.get("crashes"))
        if restarts:
            after = f", {crashes} after a daemon that ended by itself" if crashes else ""
            yield f"  restarts: {restarts}{after}; the one before this {self.daemon.get('last_end')}"
        if failure := self.daemon.get("restart_failure"):
            yield f"  the last restart failed: {failure}"

    def _counter_lines(self) -> Iterator[str]:
        directory = mountpoints.on_one_line(self.mountpoint)
        for name, text in _SHOWN.items():
            value = self.counters.get(name, 0)
            if name in _ONLY_IF_ANY and not value:
                continue  # the name alone would worry
            where = f" (see {directory}/.regfs/errors)" if name in _TOLD and value else ""
            yield f"  {text}: {in_units(value) if name.endswith('.bytes') else f'{value:g}'}{where}"

    def steps(self) -> list[Step]:
        """Return a step for each layer that is being fetched."""
        return [
            Step(f"{each['origin']} {str(each['digest'])[:19]}", _number(each["received"]), _number(each["size"]))
            for each in self.fetching
        ]

    @property
    def _cache(self) -> Mapping[str, object]:
        cache = self.daemon.get("cache")
        return cache if isinstance(cache, dict) else {}

    def _cache_line(self) -> str:
        path, used = mountpoints.on_one_line(str(self._cache.get("path"))), self._cache.get("used_bytes")
        if used is None:
            return path
        limit = _number(self._cache.get("limit_bytes"))
        of = f" of {in_units(limit)}" if limit else ", as little as possible"
        free = self._cache.get("min_free_bytes")
        stays = f", {in_units(_number(free))} of the disk stay free" if free else ""
        age_s = self._cache.get("max_age_s")
        evicted = f", evicted after {in_words(_number(age_s))} without use" if age_s else ""
        return f"{path}, {in_units(_number(used))}{of}{stays}{evicted}"

    def _uptime_s(self) -> float | None:
        started = self.daemon.get("started")
        return max(0.0, round(time.time() - started, 1)) if isinstance(started, int | float) else None


def find(wanted: Sequence[str]) -> list[Status]:
    """Return the status of the mounts on *wanted*, or of all mounts. Raises MountFailure where no regfs is mounted.

    Takes some seconds at most, also where a daemon hangs.
    """
    by_kernel = _kernel_mounts()
    named = {point: mountpoints.inside(point, by_kernel) for point in wanted}
    rest = [point for point in wanted if named[point] is None]
    chosen = choose(rest) if rest or not wanted else []
    served = by_kernel.values() if not wanted else [by_kernel[found.mountpoint] for found in named.values() if found]
    return [*_by_daemons(chosen), *served]


def _kernel_mounts() -> dict[str, Status]:
    """Return the status of the mounts that the kernel serves by itself; they have no daemon to ask."""
    return {
        mounted.mountpoint: Status(
            mounted.mountpoint,
            mounted.image,
            ALIVE,
            by_kernel="read-only" if mounted.kind == "erofs" else "writable",
        )
        for mounted in mountpoints.mounts()
        if mounted.is_kernel_mount
    }


def _by_daemons(chosen: Sequence[mountpoints.Mounted]) -> list[Status]:
    found = read(chosen)
    unsure = [status for status in found if status.state == ALIVE and "used_bytes" not in status._cache]
    if unsure:
        time.sleep(_LOOK_EVERY_S)  # a daemon looks at its cache when it is asked for the first time
        again = {status.mountpoint: status for status in read([m for m in chosen if _is_among(m, unsure)])}
        found = [again.get(status.mountpoint, status) for status in found]
    return found


def choose(wanted: Sequence[str]) -> list[mountpoints.Mounted]:
    """Return the mounts of regfs on, or around, the paths *wanted*, or all. Asks no mount; raises MountFailure.

    A bind mount of one is the same mount and not listed. A path in a bind mount of a part (a rootfs in a container)
    means the whole mount, because only that has `.regfs`.
    """
    there = {mounted.mountpoint: mounted for mounted in mountpoints.mounts() if mounted.is_regfs}
    whole: dict[str, mountpoints.Mounted] = {}
    for mounted in there.values():
        if mounted.is_whole:
            whole.setdefault(mounted.device, mounted)
    if not wanted:
        return list(whole.values())
    chosen = {}
    for path in wanted:
        inside = mountpoints.inside(path, there)
        if inside is None:
            raise MountFailure(f"no regfs is mounted on {os.path.abspath(path)}")
        mounted = there[inside.mountpoint]
        if not mounted.is_whole and mounted.device not in whole:
            raise MountFailure(f"{inside.mountpoint} shows a part of a regfs, which is mounted nowhere here as a whole")
        found = mounted if mounted.is_whole else whole[mounted.device]
        chosen[found.mountpoint] = found
    return list(chosen.values())


def read(chosen: Sequence[mountpoints.Mounted]) -> list[Status]:
    """Return the state of the mounts *chosen*. Takes some seconds at most, also where a daemon hangs."""
    answers = ask(chosen, ("version", DAEMON, "stats.json", "fetching.json"))
    return [_status(mounted, answer) for mounted, answer in zip(chosen, answers, strict=True)]


def _status(mounted: mountpoints.Mounted, answer: Answer) -> Status:
    state, reason = state_of(answer)
    if state == HANGS and (ends := ends_before(mounted)):
        reason = f"{HANGS}, of its daemons {ends}"
    if state != ALIVE:
        return Status(mounted.mountpoint, mounted.image or mounted.source, state, reason)
    return Status(
        mounted.mountpoint,
        mounted.image or mounted.source,
        ALIVE,
        version=answer.texts["version"].strip(),
        daemon=json.loads(answer.texts.get(DAEMON, "{}")),
        counters=json.loads(answer.texts.get("stats.json", "{}")),
        fetching=json.loads(answer.texts.get("fetching.json", "[]")),
    )


def state_of(answer: Answer) -> tuple[str, str]:
    """Return the state that *answer* shows, and for FAILS the reason."""
    if answer.is_late:
        return HANGS, ""
    if answer.errno in _DEAD:
        return DEAD, ""
    if answer.errno in (errno.EACCES, errno.EPERM):
        return OF_ANOTHER_USER, ""
    if answer.errno or "version" not in answer.texts:
        return FAILS, os.strerror(answer.errno) if answer.errno else "it has no .regfs/version"
    return ALIVE, ""


def watch(status: Status, *, say: Callable[[str], None], environment: Mapping[str, str]) -> None:
    """Show bars until the mount of *status* fetches nothing any more. Ctrl-C ends it too."""
    import threading

    pause = threading.Event()
    latest = [status]
    with showing(lambda: latest[0].steps(), say=say, environment=environment):
        while latest[0].fetching:
            pause.wait(_LOOK_EVERY_S)
            latest[0] = find([status.mountpoint])[0]


def _is_among(mounted: mountpoints.Mounted, found: Sequence[Status]) -> bool:
    return any(status.mountpoint == mounted.mountpoint for status in found)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
