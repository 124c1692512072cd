"""`regfs refresh`: lets daemons ask for tags and listings again, and waits until each look-up sees the new ones.

A daemon is told by SIGHUP. `.regfs/daemon.json` has its process id, which may belong to another process by the time the
signal is sent. So the process is held by a descriptor (pidfd_open(2)), and the daemon is asked a second time: if it
still answers with the same id, the descriptor is that of the daemon.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, cast

from regfs.daemon.self_description import FILE, pid_namespace
from regfs.errors import AccessDenied, MountFailure, RegfsError, RegistryTimeout, Unsupported
from regfs.mount.daemon_answers import Answer, ask
from regfs.mount.mountpoint import Mounted
from regfs.verbs.status import ALIVE, OF_ANOTHER_USER, choose, state_of

_DONE_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05
_LAST_NAMES_S = 5.0  # longer than any daemon lets the kernel trust a name by itself


class Refreshed(NamedTuple):
    """The result for one mount: *failure* is None if its tags and listings will be asked for again."""

    mountpoint: str
    failure: RegfsError | None


@dataclass(slots=True)
class _Daemon:
    """The daemon of one mount, what its daemon.json said, and a descriptor of its process (-1: there is none)."""

    mounted: Mounted
    said: Mapping[str, object]
    failure: RegfsError | None
    process: int = -1


def refresh(wanted: Sequence[str]) -> list[Refreshed]:
    """Refresh the mounts on, or around, the paths *wanted*; without any, all mounts of this user.

    Takes some seconds at most. Raises MountFailure where no regfs is mounted on one of *wanted*.
    """
    chosen = choose(wanted)
    if not wanted:
        chosen = [mounted for mounted in chosen if mounted.user_id in (None, os.geteuid())]
    daemons = [
        _Daemon(mounted, said_by(answer), failure_to_signal(mounted, answer))
        for mounted, answer in zip(chosen, _ask(chosen), strict=True)
    ]
    try:
        _signal([daemon for daemon in daemons if daemon.failure is None])
    finally:
        for daemon in daemons:
            if daemon.process >= 0:
                os.close(daemon.process)
    _wait([daemon for daemon in daemons if daemon.failure is None])
    return [Refreshed(daemon.mounted.mountpoint, daemon.failure) for daemon in daemons]


def _ask(chosen: Sequence[Mounted]) -> list[Answer]:
    return ask(chosen, ("version", FILE))


def failure_to_signal(mounted: Mounted, answer: Answer) -> RegfsError | None:
    """Return why the daemon that gave *answer* cannot be signalled, as far as its answer shows it; None otherwise."""
    point = mounted.mountpoint
    state, reason = state_of(answer)
    if state == OF_ANOTHER_USER:
        return _of_another_user(mounted)
    if state != ALIVE:
        return MountFailure(f"{point}: {reason or state}")
    if FILE not in answer.texts:
        return Unsupported(f"{point}: its daemon is of an older release; unmount it and mount it again")
    if said_by(answer).get("pid_namespace") != pid_namespace():
        return Unsupported(f"{point}: its daemon runs in another container; run this there")
    return None


def _of_another_user(mounted: Mounted) -> RegfsError:
    return AccessDenied(f"{mounted.mountpoint}: it is a mount of another user (uid {mounted.user_id})")


def _signal(daemons: Sequence[_Daemon]) -> None:
    """Send SIGHUP to those of *daemons* that still run under the process id that they gave."""
    for daemon in daemons:
        with suppress(OSError):  # it has just ended, and will not answer again
            daemon.process = os.pidfd_open(cast(int, daemon.said["pid"]))
    for daemon, answer in zip(daemons, _ask([daemon.mounted for daemon in daemons]), strict=True):
        now = said_by(answer)
        if daemon.process < 0 or any(daemon.said[key] != now.get(key) for key in ("pid", "started")):
            daemon.failure = MountFailure(f"{daemon.mounted.mountpoint}: its daemon has just ended, or was replaced")
            continue
        daemon.said = now
        try:
            signal.pidfd_send_signal(daemon.process, signal.SIGHUP)
        except PermissionError:
            daemon.failure = _of_another_user(daemon.mounted)
        except ProcessLookupError:
            daemon.failure = MountFailure(f"{daemon.mounted.mountpoint}: its daemon has just ended")


def _wait(daemons: Sequence[_Daemon]) -> None:
    """Wait until the *daemons* have refreshed and the kernel trusts no older name."""
    end = time.monotonic() + _DONE_WITHIN_S
    waiting = list(daemons)
    while waiting and time.monotonic() < end:
        answers = _ask([daemon.mounted for daemon in waiting])
        waiting = [daemon for daemon, answer in zip(waiting, answers, strict=True) if not _is_done(daemon, answer)]
        time.sleep(_LOOK_EVERY_S if waiting else 0)
    for daemon in waiting:
        daemon.failure = RegistryTimeout(
            f"{daemon.mounted.mountpoint}: its daemon got the signal, and has not refreshed within {_DONE_WITHIN_S:g} s"
        )
    done = [cast(float, daemon.said.get("names_valid_s", 0)) for daemon in daemons if daemon.failure is None]
    time.sleep(min(max(done, default=0), _LAST_NAMES_S))


def _is_done(daemon: _Daemon, answer: Answer) -> bool:
    """Tell whether a refresh that began after the signal has ended."""
    return cast(int, said_by(answer).get("refreshes_done", 0)) > cast(int, daemon.said["refreshes_begun"])


def said_by(answer: Answer) -> Mapping[str, object]:
    """Return the parsed daemon.json in *answer*; empty if two daemons, one after the other, gave parts of it."""
    try:
        said: Mapping[str, object] = json.loads(answer.texts.get(FILE, "{}"))
    except ValueError:
        return {}
    return said
