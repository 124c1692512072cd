"""Processes of our own that do heavy work: what they are started with, and what comes of their errors.

Used by passing.py and merging.py, which the merging process loads too: nothing here needs more than the error tree.
Thread rule: any thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from regfs import errors
from regfs.errors import RegfsError

# Enough to find libraries and to write messages; whatever secrets are in the daemon's environment stay there.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
# glibc would give each block of a megabyte back to the kernel and take a fresh one, page fault by page fault: 3 s of
# system time for a gigabyte. Other C libraries ignore these.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}


def error_of(told: Mapping[str, str]) -> RegfsError:
    """Return the error that a process told of: its class of the error tree, by name, and its message."""
    kind: type[RegfsError] = getattr(errors, told["error"])
    return kind(told["message"])


def process_environment() -> dict[str, str]:
    """Return what a process of ours needs to find its modules, and nothing of the user's."""
    environment = _ALLOCATOR | {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["PYTHONSAFEPATH"] = "1"  # or -m would import what lies in the working directory before all else
    return environment
