"""A mount by either driver, of registries that misbehave by rule: see tests/support/faulty_mount.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_mount import FaultyMount
from tests.support.registry import Certificates, make_certificates

MOTD = "app/1/rootfs/motd"  # of an app that was pushed


@pytest.fixture
def faulty(driver: str, needs_fuse: None, tmp_path: Path) -> Iterator[FaultyMount]:
    """Servers that fail on command and a mount of them; at the end the six things that hold after every fault."""
    made = FaultyMount(driver, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate of it for 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))
