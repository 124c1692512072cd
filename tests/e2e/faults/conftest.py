"""A mount by either driver, of registries that misbehave by rule: see tests/support/faulty_mount.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_mount import FaultyMount


@pytest.fixture
def faulty(driver: str, needs_fuse: None, tmp_path: Path) -> Iterator[FaultyMount]:
    """Servers that fail on command and a mount of them; at the end the six things that hold after every fault."""
    made = FaultyMount(driver, tmp_path)
    yield made
    made.close()
