"""The holder of a mount whose daemon does not answer (daemon/takeover/holder_process.py), found by its command line.

What daemons leave to each other is in memory that the holder has open; the verbs of its user read it there. Used by
restart.py and status.py. Any thread; asks no mount.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from regfs.errors import MountFailure
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.mountpoint import Mounted

_SCRIPT = b"/takeover/holder_process.py"
# The arguments of the script, from its end: CONNECTION STATE CONTROL PID LOG POINT.
_STATE = -5


def holder_of(mounted: Mounted) -> int:
    """Return the process of this user that holds *mounted*, 0 where there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = _command(int(pid))
            is_ours = os.geteuid() in (0, os.stat(f"/proc/{pid}").st_uid)
            if is_ours and words[-1:] == [os.fsencode(mounted.mountpoint)] and any(map(_is_script, words)):
                return int(pid)
    return 0


def ends_before(mounted: Mounted) -> str:
    """Return how the last daemons of *mounted* ended, if they ended at once; '' if not, or if that is not known."""
    try:
        holder = holder_of(mounted)
        memory = os.open(f"/proc/{holder}/fd/{int(_command(holder)[_STATE])}", os.O_RDWR | os.O_CLOEXEC)
    except (OSError, IndexError, ValueError):
        return ""
    try:
        state = StateFile(memory)
        last = state.failure or f"the last one {state.last_end}"
        return f"{state.short_lives} in a row have ended at once: {last}" if state.short_lives else ""
    except MountFailure:
        return ""
    finally:
        os.close(memory)


def _command(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]


def _is_script(word: bytes) -> bool:
    return word.endswith(_SCRIPT)
