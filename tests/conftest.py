"""What the tests of every package may use: registries, mounts of the real command, an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.support.images import TarEntry, layer
from tests.support.log_kept import log_kept
from tests.support.machine import can_and_cannot
from tests.support.mounted import REPOSITORY_ROOT, Mounted, as_user, mountinfo
from tests.support.registry import DockerRegistry, is_installed
from tests.support.served import Served
from tests.support.trees import MergedImage, Stack

NOBODY = 65534
_MEMORY = Path("/dev/shm")
_GIB = 1 << 30
# The kernel mounts no EROFS image that lies on a tmpfs, so that all would be served by FUSE; and what kills, full disks
# and evictions leave behind is looked at where users have it.
_ON_DISK = (
    "tests/export/",
    "tests/run/",
    "tests/store/",
    "tests/test_daemon.py",
    "tests/test_fstab.py",
    "tests/test_json_output.py",
    "tests/test_record_verb.py",
    "tests/e2e/faults/test_cache.py",
    "tests/e2e/test_commands.py",
    "tests/e2e/test_kills.py",
    "tests/e2e/test_rm_in_the_cache.py",
    "tests/e2e/test_small_budget.py",
)

# A busy machine is slow; how long an example takes, or to make one, proves nothing. Continuous integration tries the
# same examples each time, so that it tells what a change did; new ones are looked for wherever else the tests run.
settings.register_profile(
    "regfs",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("regfs")


def pytest_report_header() -> list[str]:
    """Say what this machine can test, and what it cannot: those tests are skipped."""
    can, cannot = can_and_cannot()
    return [f"tested here: {', '.join(can) or 'nothing'}", f"not tested here: {', '.join(cannot) or 'nothing'}"]


def missing(what: str) -> NoReturn:
    """Skip the test for want of *what*; where continuous integration runs, that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Merge layers, base first, each given as a list of entries."""
    made: list[MergedImage] = []

    def merged(*layers: list[TarEntry]) -> MergedImage:
        built = [layer(*entries, compression="none") for entries in layers]
        made.append(MergedImage(tmp_path / f"image-{len(made)}", *built))
        return made[-1]

    yield merged
    for image in made:
        image.close()


@pytest.fixture(scope="session")
def memory() -> Iterator[Path | None]:
    """A directory in memory for files of tests; None where there is too little, or REGFS_TESTS_ON_DISK is set."""
    if os.environ.get("REGFS_TESTS_ON_DISK") or not _memory_will_do():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="regfs-tests-", dir=_MEMORY, ignore_cleanup_errors=True) as made:
        yield Path(made)


def _memory_will_do() -> bool:
    """Tell whether files in memory are as good as on a disk here: room, programs, extended attributes (Linux 6.6)."""
    try:
        found = os.statvfs(_MEMORY)
        with tempfile.TemporaryDirectory(dir=_MEMORY) as probe:
            os.setxattr(probe, "user.probe", b"")
    except OSError:
        return False
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    is_room = found.f_bavail * found.f_frsize > _GIB and int(available.split()[1]) << 10 > 3 * _GIB
    return is_room and not found.f_flag & (os.ST_NOEXEC | os.ST_NOSUID | os.ST_NODEV)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path, memory: Path | None) -> Iterator[Path]:
    """A directory of the test's own, in memory: waiting for the disk took more time than all else together."""
    if memory is None or request.node.nodeid.startswith(_ON_DISK):
        yield tmp_path
        return
    made = memory / tmp_path.name
    made.mkdir()
    yield made
    if not any(str(made) in line for line in mountinfo()):
        _remove(made)


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except RecursionError:  # before Python 3.13
        subprocess.run(["rm", "-rf", "--one-file-system", directory], check=False)


@pytest.fixture(scope="session")
def needs_docker_registry() -> None:
    """Skip where Debian's docker-registry is not installed."""
    if not is_installed():
        missing("docker-registry is not installed (apt-get install docker-registry)")


@pytest.fixture(scope="session")
def docker_registry(needs_docker_registry: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A plain docker-registry, empty at first and shared by the tests of one process: use repositories of your own."""
    with DockerRegistry(tmp_path_factory.mktemp("docker-registry")) as registry:
        yield registry


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry in memory that can be made to fail; after the test the cache must be clean."""
    made = Served(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture(scope="session")
def needs_fuse() -> None:
    """Skip where nothing can be mounted."""
    if not os.path.exists("/dev/fuse"):
        missing("/dev/fuse is missing (modprobe fuse)")


MountRegfs = Callable[..., Mounted]


@pytest.fixture
def mount_regfs(needs_fuse: None, tmp_path: Path) -> Iterator[MountRegfs]:
    """Return a function that mounts regfs as Mounted does; what it mounted is unmounted, and checked, at the end."""
    mounts: list[Mounted] = []

    def mount(*options: str, directory: Path = tmp_path, **more: object) -> Mounted:
        name = f"reg{len(mounts)}" if mounts else "reg"
        made = Mounted(directory, options=options, name=name, **more)  # type: ignore[arg-type]
        made.__enter__()
        mounts.append(made)
        return made

    yield mount
    problems = []
    for made in reversed(mounts):
        try:
            made.__exit__(None, None, None)
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="session")
def ordinary_user(needs_fuse: None) -> int | None:
    """The uid of a user without privileges, able to run regfs and open /dev/fuse; None: the tests run as one."""
    if os.getuid() != 0:
        return None
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        os.chmod("/dev/fuse", 0o666)  # what udev makes of it wherever udev runs
    probe = [*as_user(NOBODY), sys.executable, "-c", "import fuse, requests"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY_ROOT)}
    if subprocess.run(probe, check=False, capture_output=True, cwd="/", env=environment).returncode != 0:
        pytest.skip(f"an ordinary user cannot run {sys.executable}: it lies below a directory that is closed to others")
    readable = [*as_user(NOBODY), "test", "-r", str(REPOSITORY_ROOT / "regfs/errors.py")]
    if subprocess.run(readable, check=False).returncode != 0:
        pytest.skip(f"an ordinary user cannot read {REPOSITORY_ROOT}")
    return NOBODY


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Undo what a verb that a test runs in this process makes of the process's log."""
    with log_kept():
        yield
