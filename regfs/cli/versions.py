"""What `regfs --version` prints. Used by main.py, the verb `version`, and __init__.py, which loads no more for it."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

from regfs import __version__


def version() -> str:
    """Return the version of regfs, and of what it would run with."""
    found = versions()
    parts = {
        "Python": found["python"],
        "kernel": found["kernel"],
        "driver": "kernel (/dev/fuse)" if found["driver"] == "kernel" else found["driver"],
        "libfuse 2": "found" if found["has_libfuse2"] else "not found; only --driver fusepy needs it",
        "isal": "found" if found["has_isal"] else "not found: gzip at a quarter of the speed",
    }
    return "\n".join([f"regfs {__version__}", *(f"{name}: {value}" for name, value in parts.items())])


def versions() -> dict[str, str | bool]:
    """Return the same as the fields that `regfs version --json` prints."""
    return {
        "regfs": __version__,
        "python": sys.version.split()[0],
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "driver": "kernel" if sys.platform == "linux" else "fusepy",
        "has_libfuse2": has_libfuse(),
        "has_isal": PathFinder.find_spec("isal") is not None,
    }


def has_libfuse() -> bool:
    """Tell whether libfuse 2 can be loaded, which only the fusepy driver needs."""
    import ctypes

    from regfs.mount.fusepy import LIBRARY

    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True
