"""Mounts of the suite's tree, once for each driver; what never changes of it once more, as an EROFS image."""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.asking_kernel import Kernel
from tests.mount.kernel_image import mounted_image
from tests.mount.memory_tree import SuiteTree
from tests.mount.serving import DRIVERS, Serving
from tests.support.erofs import missing as missing_for_erofs


def why_not(driver: str) -> str:
    """Return why *driver* cannot mount here; nothing where it can."""
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing (modprobe fuse)"
    if os.geteuid() != 0:
        return "the suite mounts as root"
    if driver.startswith("fusepy") and ctypes.util.find_library("fuse") is None:
        return "libfuse 2 is not installed (apt-get install libfuse2)"
    return ""


EROFS = "erofs"
FUSE = (*DRIVERS, *(f"{name}+without_sys_admin" for name in DRIVERS))


@pytest.fixture(scope="session", params=FUSE)
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver in turn, as root and as an ordinary user has it: through the helper program, without passthrough."""
    reason = why_not(request.param)
    if reason:
        pytest.skip(reason)
    name: str = request.param
    return name


MountedBy = Callable[[str], Path]


@pytest.fixture(scope="session")
def mounted_by(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedBy]:
    """Return where a driver has mounted the suite's tree, once for all tests."""
    served: dict[str, Serving] = {}

    def mounted(driver: str) -> Path:
        if driver not in served:
            served[driver] = Serving(driver, tmp_path_factory.mktemp(driver) / "mnt")
        return served[driver].path

    yield mounted
    for serving in served.values():
        status = serving.stop()
        left = serving.is_mounted()
        serving.clean_up()
        assert (status, left) == (0, False)


@pytest.fixture(scope="session")
def mounted(driver: str, mounted_by: MountedBy) -> Path:
    """The mount point of the suite's tree; shared, so only for tests that change nothing and release nothing."""
    return mounted_by(driver)


@pytest.fixture(scope="session")
def erofs_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The mount point of an image of /stable, which the kernel serves alone."""
    if reason := missing_for_erofs():
        pytest.skip(reason)
    with mounted_image(SuiteTree(), tmp_path_factory.mktemp(EROFS)) as point:
        yield point


@pytest.fixture(scope="session", params=[*FUSE, EROFS])
def stable(request: pytest.FixtureRequest) -> Path:
    """/stable of the suite's tree by each driver, and as an EROFS image of it."""
    if request.param == EROFS:
        image: Path = request.getfixturevalue("erofs_image")
        return image
    if reason := why_not(request.param):
        pytest.skip(reason)
    mounted_by: MountedBy = request.getfixturevalue("mounted_by")
    return mounted_by(request.param) / "stable"


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
