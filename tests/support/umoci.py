"""umoci, the reference unpacker: what it makes of an image, as a snapshot (tests/support/snapshot.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.images import BuiltImage, write_layout
from tests.support.snapshot import Entry, snapshot

CLOCK = -1
"""Stands for a modification time that umoci did not set, so that it is the time of the test.

umoci makes directories that no entry describes, and it takes names out of and puts directories into directories whose
time it does not restore afterwards."""
_FORBIDDEN_XATTRS = frozenset({"security.selinux"})


def missing() -> str:
    """Return why umoci cannot be compared with here, "" if it can."""
    if shutil.which("umoci") is None:
        return "umoci is not installed (apt install umoci)"
    if os.geteuid() != 0:
        return "unpacking as umoci does (owners, device nodes) needs root"
    return ""


needs_umoci = pytest.mark.skipif(bool(missing()), reason=missing())


def unpacked(directory: Path, image: BuiltImage) -> dict[bytes, Entry] | str:
    """Return what umoci unpacks of *image*, below the empty *directory*; if it refuses the image, what it says."""
    layout = write_layout(directory / "layout", image)
    return unpacked_layout(directory, f"{layout}:latest")


def unpacked_layout(directory: Path, source: str) -> dict[bytes, Entry] | str:
    """Return what umoci unpacks of *source* (layout:tag) into *directory*/bundle, or why it does not."""
    bundle = directory / "bundle"
    # File systems keep coarser time than the clock.
    began_ns = time.time_ns() - 20_000_000
    done = subprocess.run(
        ["umoci", "unpack", "--image", source, str(bundle)], capture_output=True, text=True, check=False, umask=0o022
    )
    if done.returncode:
        return done.stderr
    return {path: comparable(entry, began_ns=began_ns) for path, entry in snapshot(bundle / "rootfs").items()}


def comparable(entry: Entry, *, began_ns: int) -> Entry:
    """Return *entry* with CLOCK for times after *began_ns*."""
    return replace(entry, mtime_ns=CLOCK) if entry.mtime_ns >= began_ns else entry


def as_umoci_would(ours: dict[bytes, Entry], theirs: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """Return *ours* with CLOCK where *theirs* has it, and without the xattrs that umoci leaves out on purpose."""
    adapted = {}
    for path, entry in ours.items():
        other = theirs.get(path)
        xattrs = tuple((name, value) for name, value in entry.xattrs if name not in _FORBIDDEN_XATTRS)
        is_clock = other is not None and other.mtime_ns == CLOCK
        adapted[path] = replace(entry, xattrs=xattrs, mtime_ns=CLOCK if is_clock else entry.mtime_ns)
    return adapted
