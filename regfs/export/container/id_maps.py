"""Id maps of new user namespaces: which users and groups of the machine their ids are (user_namespaces(7)).

Without privileges a process may map only its own id. newuidmap(1) maps the ranges of the user in /etc/subuid and
/etc/subgid as well. Used by namespaces.py and supervisor.py. Pure, except where noted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from regfs.errors import MountFailure
from regfs.process.subordinate_ids import SUBGID, SUBUID, IdRange, ranges_here
from regfs.process.user import FALLBACK_PATH

_HELPER_TIMEOUT_S = 10.0
REMEDY = (
    f"as root: apt install uidmap, and a range for the user in {SUBUID} and {SUBGID} (usermod --add-subuids "
    "100000-165535 --add-subgids 100000-165535 USER)"
)


class IdMaps(NamedTuple):
    """The ids of a new user namespace. Without *uids* and *gids* there is one: root, which is the user outside."""

    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether root is the only user."""
        return not self.uids


def maps_here(*, wanted: bool | None) -> IdMaps:
    """Return the maps for a namespace of this user, with the ranges in /etc/subuid if possible.

    *wanted*: False for none; True raises MountFailure, with the remedy, where they are impossible; None: if possible.
    """
    if wanted is False:
        return IdMaps()
    uids, gids = ranges_here(SUBUID), ranges_here(SUBGID)
    missing = [name for name in ("newuidmap", "newgidmap") if _program(name) is None]
    if uids and gids and not missing:
        return IdMaps(whole_map(os.geteuid(), uids), whole_map(os.getegid(), gids))
    if wanted:
        reason = f"{' and '.join(missing)} missing" if missing else f"nothing for this user in {SUBUID} or {SUBGID}"
        raise MountFailure(f"--subuid: {reason}; {REMEDY}")
    return IdMaps()


def whole_map(own: int, ranges: Iterable[IdRange]) -> tuple[IdRange, ...]:
    """Return the map that gives 0 to *own* and the ids from 1 on to *ranges*."""
    return (IdRange(0, own, 1), *ranges)


def write_single_map(uid: int, gid: int) -> None:
    """Make root of this process's new user namespace the user *uid* outside of it. Raises OSError."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def write_maps(pid: int, maps: IdMaps) -> None:
    """Let newuidmap and newgidmap write *maps* for the process *pid*. Raises MountFailure."""
    for name, ranges in (("newuidmap", maps.uids), ("newgidmap", maps.gids)):
        words = [str(number) for each in ranges for number in each]
        done = subprocess.run(
            [_program(name) or name, str(pid), *words], capture_output=True, text=True, errors="replace",
            timeout=_HELPER_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise MountFailure(f"{name} maps nothing: {done.stderr.strip()}; --owner me does without; {REMEDY}")


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=FALLBACK_PATH)
