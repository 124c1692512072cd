"""Requests that wait: they can be interrupted, and hold up no other. The same with both drivers."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import ServeSuite

TIMEOUT_S = 100


def reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("name", ["lookup-1", "read-1"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_reader_that_waits_ends_with_its_signal(
    serve: ServeSuite, driver: str, name: str, number: signal.Signals
) -> None:
    serving = serve(driver)
    waiting = reader(serving.path / "slow" / name)
    serving.expect("WAITING")
    waiting.send_signal(number)
    assert waiting.wait(TIMEOUT_S) == -number
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
