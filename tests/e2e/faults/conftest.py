"""A mount of registries that misbehave by rule (see tests/support/faulty_mount.py), and which driver makes it.

A fault is tested in three places. tests/registry has every variant, at the client. tests/tree has what becomes of it
without a kernel. Here it is tested once for each errno and each promise, through a real mount: what only programs and
the kernel see. Below the drivers it is the same code, so that most of these tests mount with the kernel driver alone;
`by_both_drivers` marks those in which a driver has a part: threads that wait, interrupted readers, open files and
directories, sizes, page cache, and one test for each errno.

Tests share a mount for each driver and options. `by_itself` marks those that have one of their own: what they do to it
would change it for others (a cache that is full or torn, an environment, a broken config.json, a short deadline that
something is to miss), or they unmount it, kill it, or leave requests in it that hang.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import DRIVERS
from tests.support.faulty_mount import FaultyMount
from tests.support.registry import Certificates, make_certificates
from tests.support.shared_mounts import SharedMounts

MOTD = "app/1/rootfs/motd"  # of an app that was pushed
by_both_drivers = pytest.mark.parametrize("driver", DRIVERS)
by_itself = pytest.mark.usefixtures("own_mount")


@pytest.fixture
def driver() -> str:
    """The driver of the mount, unless the test is marked `by_both_drivers`."""
    return "kernel"


@pytest.fixture
def own_mount() -> None:
    """Ask for this (`by_itself`), and `faulty` is a mount that no other test uses."""


@pytest.fixture(scope="session")
def shared_mounts(needs_fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedMounts]:
    """The mounts that are used by one test after the other."""
    mounts = SharedMounts(tmp_path_factory.mktemp("shared-mounts"))
    yield mounts
    mounts.close()


@pytest.fixture
def faulty(
    driver: str, shared_mounts: SharedMounts, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[FaultyMount]:
    """Servers that fail on command and a mount of them; at the end the six things that hold after every fault."""
    made = FaultyMount(driver, tmp_path, None if "own_mount" in request.fixturenames else shared_mounts)
    yield made
    made.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate of it for 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))
