"""A registry with an image, and a machine that mounts it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer
from tests.support.image_mounts import Machine, demo_registry
from tests.support.mounted import mounts_at


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A registry with demo/app:1, an image of two layers."""
    with FaultServer(demo_registry()) as served:
        yield served


@pytest.fixture
def machine(server: FaultServer, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(server, tmp_path)
    yield made
    while mounts_at(made.point):
        subprocess.run(["umount", "-l", made.point], check=True)
