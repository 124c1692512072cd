"""Mounts of the suite's tree, once for each driver."""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.asking_kernel import Kernel
from tests.mount.serving import DRIVERS, Serving


def why_not(driver: str) -> str:
    """Return why *driver* cannot mount here; nothing where it can."""
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing (modprobe fuse)"
    if os.geteuid() != 0:
        return "the suite mounts as root"
    if driver.startswith("fusepy") and ctypes.util.find_library("fuse") is None:
        return "libfuse 2 is not installed (apt-get install libfuse2)"
    return ""


@pytest.fixture(scope="session", params=[*DRIVERS, *(f"{name}+without_sys_admin" for name in DRIVERS)])
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver in turn, as root and as an ordinary user has it: through the helper program, without passthrough."""
    reason = why_not(request.param)
    if reason:
        pytest.skip(reason)
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def mounted(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The mount point of the suite's tree; shared, so only for tests that change nothing and release nothing."""
    serving = Serving(driver, tmp_path_factory.mktemp(driver) / "mnt")
    yield serving.path
    status = serving.stop()
    left = serving.is_mounted()
    serving.clean_up()
    assert (status, left) == (0, False)


ServeSuite = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[ServeSuite]:
    """Mount the suite's tree for this test alone: serve(driver, words=(), prefix=())."""
    served: list[Serving] = []

    def start(driver: str, *, words: tuple[str, ...] = (), prefix: tuple[str, ...] = ()) -> Serving:
        served.append(Serving(driver, tmp_path / f"mnt-{len(served)}", words, prefix))
        return served[-1]

    yield start
    for serving in served:
        serving.clean_up()


@pytest.fixture
def needs_kernel_driver() -> None:
    """Skip where the kernel driver cannot mount."""
    if reason := why_not("kernel"):
        pytest.skip(reason)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A session that has been accepted already."""
    asking = Kernel()
    asking.init()
    yield asking
    asking.close()


@pytest.fixture
def new_kernel() -> Iterator[Kernel]:
    """A session before INIT."""
    asking = Kernel()
    yield asking
    asking.close()
