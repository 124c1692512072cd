"""A directory that becomes read-only under those that use it, as a disk with errors does. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount")


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Let nothing be written into *directory* for a while; what is open there stays as it is."""
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
