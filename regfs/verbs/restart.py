"""`regfs restart`: lets another daemon, perhaps of a newer release, take mounts over while they are in use.

The holder of a mount (daemon/takeover/holder_process.py) is told by SIGRTMIN; `.regfs/daemon.json` has its process id.
The process is held by a descriptor, and the daemon is asked a second time, as `regfs refresh` does. The holder of a
daemon that does not answer is found by its command line, which ends with the mount point.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, cast

from regfs.daemon.self_description import FILE
from regfs.errors import AccessDenied, MountFailure, RegfsError, RegistryTimeout, Unsupported
from regfs.mount.daemon_answers import ask
from regfs.mount.mountpoint import Mounted
from regfs.verbs.holders import holder_of
from regfs.verbs.refresh import failure_to_signal, said_by
from regfs.verbs.status import choose

# Seconds: longer than a daemon waits for its open requests, plus what the next one takes to load.
_DONE_WITHIN_S = 100.0
_LOOK_EVERY_S = 0.1


class Restarted(NamedTuple):
    """The result for one mount: *pid* is the daemon that serves it now, *failure* why that is still the old one."""

    mountpoint: str
    pid: int
    failure: RegfsError | None


@dataclass(slots=True)
class _Mount:
    mounted: Mounted
    said: Mapping[str, object]
    failure: RegfsError | None
    pid: int = 0


def restart(wanted: Sequence[str]) -> list[Restarted]:
    """Restart the daemons of the mounts on, or around, the paths *wanted*; without any, of all mounts of this user.

    Blocks until other daemons serve, 100 s at most. Raises MountFailure where no regfs is mounted on one of *wanted*.
    """
    chosen = choose(wanted)
    if not wanted:
        chosen = [mounted for mounted in chosen if mounted.user_id in (None, os.geteuid())]
    answers = ask(chosen, ("version", FILE))
    mounts = [
        _Mount(mounted, said_by(answer), failure_to_signal(mounted, answer))
        for mounted, answer in zip(chosen, answers, strict=True)
    ]
    for mount, answer in zip(mounts, answers, strict=True):
        if mount.failure is None:
            mount.failure = _signal(mount)
        elif answer.is_late and (holder := holder_of(mount.mounted)):
            mount.failure = _signal_process(mount, holder)
    _wait([mount for mount in mounts if mount.failure is None])
    return [Restarted(mount.mounted.mountpoint, mount.pid, mount.failure) for mount in mounts]


def _signal(mount: _Mount) -> RegfsError | None:
    """Send SIGRTMIN to the holder of *mount*; return the error where that is not possible, None otherwise."""
    point, holder = mount.mounted.mountpoint, cast(int, mount.said.get("holder", 0))
    if not holder:
        return Unsupported(
            f"{point}: no process holds the mount (--no-restart, -f or --driver fusepy, or an older release); "
            "unmount it and mount it again"
        )
    return _signal_process(mount, holder)


def _signal_process(mount: _Mount, holder: int) -> RegfsError | None:
    point, process = mount.mounted.mountpoint, -1
    try:
        process = os.pidfd_open(holder)
        if mount.said:
            (answer,) = ask([mount.mounted], ("version", FILE))
            mount.said = said_by(answer)  # another restart may have ended since the first question
            if mount.said.get("holder") != holder:
                return MountFailure(f"{point}: the process that holds the mount has just been replaced; try again")
        signal.pidfd_send_signal(process, signal.SIGRTMIN)
    except PermissionError:
        return AccessDenied(f"{point}: it is a mount of another user (uid {mount.mounted.user_id})")
    except OSError as error:
        return MountFailure(f"{point}: the process that holds the mount has ended: {error.strerror}; try again")
    finally:
        with suppress(OSError):
            os.close(process)
    return None


def _wait(mounts: Sequence[_Mount]) -> None:
    """Wait until other daemons serve *mounts*, or say why not."""
    end = time.monotonic() + _DONE_WITHIN_S
    waiting = list(mounts)
    while waiting and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
        for mount, answer in zip(waiting, ask([each.mounted for each in waiting], ("version", FILE)), strict=True):
            now, point = said_by(answer), mount.mounted.mountpoint
            if now.get("pid", 0) and now.get("restarts", 0) != mount.said.get("restarts", -1):
                mount.pid = cast(int, now["pid"])
            elif now.get("restart_failure"):
                mount.failure = MountFailure(f"{point}: the daemon goes on: {now['restart_failure']}")
        waiting = [mount for mount in waiting if not mount.pid and mount.failure is None]
    for mount in waiting:
        mount.failure = RegistryTimeout(
            f"{mount.mounted.mountpoint}: no other daemon has taken over within {_DONE_WITHIN_S:g} s"
        )
