"""A disk of the cache that hangs below a mount: all requests are answered anyway. The same with both drivers."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import ServeSuite, why_not
from tests.mount.hanging_tree import DIRECTORIES
from tests.mount.serving import DRIVERS

TIMEOUT_S = 100


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver in turn, as root: what hangs does not depend on the user who mounted."""
    name: str = request.param
    if reason := why_not(name):
        pytest.skip(reason)
    return name


def reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def is_timed_out(waiting: subprocess.Popen[bytes]) -> bool:
    out, told = waiting.communicate(timeout=TIMEOUT_S)
    return not out and os.strerror(errno.ETIMEDOUT).encode() in told


@pytest.mark.parametrize("name", ["lookup", "read"])
def test_requests_are_answered_while_one_hangs_in_the_disk(serve: ServeSuite, driver: str, name: str) -> None:
    serving = serve(driver, words=("hanging", "timeout=1"))
    waiting = reader(serving.path / "hanging/0" / name)
    serving.expect("HANGING")
    assert (serving.path / "stable/file").read_bytes() == b"hello\n"
    assert sorted(os.listdir(serving.path / "stable/whiteouts"))
    assert is_timed_out(waiting)
    assert (serving.path / "stable/script").stat().st_mode & 0o111
    while "the disk of the cache has not answered for 1 s" not in serving.log.read_text():  # it is told afterwards
        os.stat(serving.path / "stable")
    assert "Traceback" not in serving.log.read_text()


def test_every_request_that_hangs_in_the_disk_is_answered_at_its_deadline(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver, words=("hanging", "timeout=1"))
    paths = [serving.path / f"hanging/{number}/{name}" for number in range(DIRECTORIES) for name in ("lookup", "read")]
    readers = [reader(path) for path in paths]
    serving.expect("HANGING", times=len(readers))
    assert (serving.path / "stable/file").read_bytes() == b"hello\n"
    assert all(is_timed_out(waiting) for waiting in readers)


def test_once_the_disk_answers_again_everything_can_be_read(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver, words=("hanging", "timeout=1"))
    paths = [serving.path / f"hanging/{number}/{name}" for number in range(4) for name in ("lookup", "read")]
    readers = [reader(path) for path in paths]
    assert all(is_timed_out(waiting) for waiting in readers)
    os.stat(serving.path / "mended")
    assert [path.read_bytes() for path in paths] == [b"late\n"] * len(paths)
    subprocess.run(["find", serving.path / "stable"], stdout=subprocess.DEVNULL, timeout=TIMEOUT_S, check=True)
    assert serving.stop() == 0
    assert "Traceback" not in serving.log.read_text()


def test_a_read_on_a_disk_that_hung_for_less_than_the_deadline_gets_the_content(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver, words=("hanging", "timeout=1000"))
    readers = [reader(serving.path / f"hanging/{number}/read") for number in range(8)]
    serving.expect("HANGING", times=len(readers))
    os.stat(serving.path / "mended")
    assert [waiting.communicate(timeout=TIMEOUT_S)[0] for waiting in readers] == [b"late\n"] * len(readers)


def test_a_reader_that_hangs_in_the_disk_ends_with_its_signal(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver, words=("hanging", "timeout=1000"))
    # The first hangs in the thread that receives, the second in another.
    readers = [reader(serving.path / "hanging/0/read"), reader(serving.path / "hanging/1/read")]
    serving.expect("HANGING", times=2)
    for waiting in readers:
        waiting.send_signal(signal.SIGINT)
    if driver.startswith("fusepy"):
        assert [waiting.wait(TIMEOUT_S) for waiting in readers] == [-signal.SIGINT] * 2
    assert (serving.path / "stable/file").read_bytes() == b"hello\n"
    os.stat(serving.path / "mended")
    assert [waiting.wait(TIMEOUT_S) for waiting in readers] == [-signal.SIGINT] * 2


def test_a_mount_ends_while_requests_hang_in_the_disk(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver, words=("hanging", "timeout=1000"))
    readers = [reader(serving.path / f"hanging/{number}/lookup") for number in range(3)]
    serving.expect("HANGING", times=len(readers))
    assert serving.stop() == 0
    assert not serving.is_mounted()
    for waiting in readers:
        assert waiting.wait(TIMEOUT_S) != 0
