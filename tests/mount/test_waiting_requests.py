"""Requests that wait: they can be interrupted, and hold up no other. The same with both drivers.

How a mount was made plays no part in it: mounts by the helper program are left to test_behaviour.py and test_life.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import ServeSuite, why_not
from tests.mount.serving import DRIVERS

TIMEOUT_S = 100


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver in turn, mounted by root."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    name: str = request.param
    return name


def reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_reader_that_waits_ends_with_its_signal(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    for number in (signal.SIGINT, signal.SIGKILL):
        for name in ("lookup", "read"):
            waiting = reader(serving.path / "slow" / f"{name}-{number:d}")
            serving.expect("WAITING")
            waiting.send_signal(number)
            assert waiting.wait(TIMEOUT_S) == -number, name
            assert (serving.path / "stable/file").read_bytes() == b"hello\n"


def test_one_readers_signal_does_not_end_another_reader(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    stopped, staying = (reader(serving.path / "slow" / name) for name in ("read-1", "read-2"))
    serving.expect("WAITING", times=2)
    stopped.send_signal(signal.SIGINT)
    stopped.wait(TIMEOUT_S)
    os.stat(serving.path / "release")
    assert staying.communicate(timeout=TIMEOUT_S)[0] == b"late\n"


def test_a_hundred_waiting_readers_do_not_hold_up_a_walk(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    readers = [reader(serving.path / "slow" / f"read-{number}") for number in range(100)]
    serving.expect("WAITING", times=100)
    subprocess.run(["find", serving.path / "stable"], stdout=subprocess.DEVNULL, timeout=TIMEOUT_S, check=True)
    assert (serving.path / "stable/big").stat().st_size == len((serving.path / "stable/big").read_bytes())
    os.stat(serving.path / "release")
    assert {waiting.communicate(timeout=TIMEOUT_S)[0] for waiting in readers} == {b"late\n"}


def test_what_was_waited_for_is_right_in_the_end(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    waiting = reader(serving.path / "slow/lookup-1")
    serving.expect("WAITING")
    os.stat(serving.path / "release")
    assert waiting.communicate(timeout=TIMEOUT_S) == (b"late\n", b"")


def test_a_mount_stops_while_a_request_waits(serve: ServeSuite, driver: str) -> None:
    serving = serve(driver)
    waiting = reader(serving.path / "slow/read-1")
    serving.expect("WAITING")
    assert serving.stop() == 0
    assert waiting.wait(TIMEOUT_S) != 0
    waiting.communicate()
    assert not serving.is_mounted()
