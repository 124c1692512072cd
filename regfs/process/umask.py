"""Reads the umask of this process without changing it. Any thread."""

from __future__ import annotations

import os
from pathlib import Path

_STATUS = "/proc/self/status"
_FIELD = "Umask:"


def current_umask() -> int:
    """Return the umask of this process. Source: proc_pid_status(5), "Umask", since Linux 4.7.

    umask(2) returns the mask only while it sets another, and files that other threads make meanwhile would get wrong
    modes. It is called only where there is no /proc.
    """
    try:
        lines = Path(_STATUS).read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.removeprefix(_FIELD), 8) for line in lines if line.startswith(_FIELD))
    except (OSError, StopIteration):
        umask = os.umask(0o077)
        os.umask(umask)
        return umask
