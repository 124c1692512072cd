"""Checks before a mount: each failure names the object, the reason and the remedy.

Used by cli/mount_command.py before it starts a daemon, so that the user reads the message of the real obstacle and not
what mount(2) or fusermount3 make of it. Any thread.
"""

from __future__ import annotations

import os
import stat

from regfs.errors import MountFailure
from regfs.mount import mountpoint as mountpoints
from regfs.mount.device import open_device


def prepare(point: str) -> list[str]:
    """Check that something can be mounted on *point*, and return notes for the user.

    A dead mount that a crashed regfs left there is detached. Raises MountFailure naming object, reason and remedy.
    """
    _refuse_hanging(point)
    notes = []
    if mountpoints.detach_dead(point):
        notes.append(f"removed the dead mount that a crashed regfs left on {point}")
    mountpoints.check(point)
    os.close(open_device())
    if os.geteuid() != 0 and not mountpoints.may_mount():
        mountpoints.helper("to mount")
        _check_ownership(point)
        if not os.path.exists(mountpoints.MTAB):
            notes.append(mountpoints.MTAB_REMEDY)
    return notes + hidden_by_mount(point)


def hidden_by_mount(point: str) -> list[str]:
    """Return a note where *point* is not empty."""
    hidden = f"{point} is not empty; what is in it is hidden until it is unmounted"
    return [hidden] if _has_entries(point) else []


def _refuse_hanging(point: str) -> None:
    """Raise MountFailure if the daemon of a mount on *point* hangs: all other checks would wait for it."""
    there = mountpoints.topmost(point)
    if there is None or not there.is_regfs:
        return
    from regfs.mount.daemon_answers import ask  # 3 ms that a start on a free directory does not need

    if ask([there], ("version",))[0].is_late:
        raise MountFailure(f"{point} is a mount that does not answer ({there.source}); regfs umount --force {point}")


def _check_ownership(point: str) -> None:
    """Refuse what fusermount3 refuses: a directory that the user cannot write to, or a sticky one of another user."""
    status = os.stat(point)
    sticky_of_another = status.st_mode & stat.S_ISVTX and status.st_uid != os.geteuid()
    if sticky_of_another or not os.access(point, os.W_OK, effective_ids=True):
        raise MountFailure(
            f"{point} belongs to uid {status.st_uid}, and you may not mount there; use a directory of yours"
        )


def _has_entries(point: str) -> bool:
    try:
        with os.scandir(point) as entries:
            return next(entries, None) is not None
    except OSError:
        return False  # one can mount on an unreadable directory
