"""What a daemon sets for its whole process before it mounts. Other packages set nothing: as a library regfs is a guest.

Used by serve.py, once, in the main thread. logs.py sets up logging likewise.
"""

from __future__ import annotations

import os
import sys

from regfs.mount.fusepy import LIBRARY
from regfs.process.descriptors import raise_descriptor_limit

# How long another thread may keep Python's lock when a request has come. With the usual 5 ms and one busy thread beside
# it a look-up takes 180 us, with this 80 us (40 us with no other thread, all on two busy cores).
_SWITCH_INTERVAL_S = 0.0001


def set_up_process(driver: str) -> None:
    """Set what a mount by *driver* ("kernel" or "fusepy") needs of its process."""
    raise_descriptor_limit()  # each file that is open in the mount has a descriptor
    if driver == "kernel":
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
    else:
        # Without the name fusepy searches with ldconfig: 12 ms, and musl has no ldconfig.
        os.environ.setdefault("FUSE_LIBRARY_PATH", LIBRARY)
