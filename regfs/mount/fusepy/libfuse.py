"""fusepy and the libfuse that it has loaded: the only importer of fuse.

Importing this module raises MountFailure, which names the packages, where either is missing. Used by operations.py,
adapter.py, session.py and serving_threads.py. Thread rule: constants.
"""

from __future__ import annotations

import ctypes

from regfs.errors import MountFailure
from regfs.mount.fusepy import LIBRARY

__all__ = ["fuse", "libfuse"]

try:
    try:
        import fusepy as fuse  # as Debian calls it: its package python3-fuse has another library of this name
    except ModuleNotFoundError:
        import fuse
except ModuleNotFoundError:
    raise MountFailure(
        "the fusepy driver needs the Python package fusepy (apt install python3-fusepy, or pip install fusepy); "
        "--driver kernel needs none"
    ) from None
except OSError as error:
    raise MountFailure(
        f"the fusepy driver needs {LIBRARY} ({error}): apt install libfuse2 (or libfuse2t64), dnf install fuse-libs, "
        "apk add fuse or pacman -S fuse2; --driver kernel needs none"
    ) from error

libfuse: ctypes.CDLL = fuse._libfuse
