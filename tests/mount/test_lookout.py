"""Waiting for requests: cores are kept awake during a burst of them, and not before or after."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.mount.busy_poll import BusyPoll
from regfs.mount.wakefulness import Wakefulness

BURST = 200


class Questions:
    """A pipe that questions come out of, and a lookout that waits for them."""

    def __init__(self, wakefulness: Wakefulness) -> None:
        self._read, self._write = os.pipe()
        self.lookout = BusyPoll(self._read, sleep_ms=1, wakefulness=wakefulness)

    def ask(self) -> None:
        """Let one question come, and be found."""
        os.write(self._write, b"?")
        while True:
            try:
                os.read(self._read, 1)
            except BlockingIOError:
                self.lookout.wait()
                continue
            self.lookout.found()
            return

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """What stands for /dev/cpu_dma_latency."""
    file = tmp_path / "cpu_dma_latency"
    file.touch()
    return file


def wakefulness_of(device: Path, driver: str) -> Wakefulness:
    file = device.with_name("current_driver")
    file.write_text(f"{driver}\n")
    return Wakefulness(device=device, driver=file)


@pytest.fixture
def wakefulness(device: Path) -> Wakefulness:
    return wakefulness_of(device, "intel_idle")


@pytest.fixture
def questions(wakefulness: Wakefulness) -> Iterator[Questions]:
    made = Questions(wakefulness)
    yield made
    made.close()


def burst(questions: Questions, wakefulness: Wakefulness) -> None:
    for _ in range(100 * BURST):  # a machine that stands still in between makes no burst of it: then once more
        questions.ask()
        if wakefulness.is_held:
            return


def test_cores_are_kept_awake_during_a_burst_and_sleep_when_nothing_comes(
    questions: Questions, wakefulness: Wakefulness
) -> None:
    questions.ask()
    assert not wakefulness.is_held
    burst(questions, wakefulness)
    assert wakefulness.is_held
    for _ in range(1_000_000):
        questions.lookout.wait()
        if not wakefulness.is_held:
            break
    assert not wakefulness.is_held


def test_nothing_is_held_after_the_end(questions: Questions, wakefulness: Wakefulness) -> None:
    burst(questions, wakefulness)
    assert wakefulness.is_held
    questions.lookout.close()
    assert not wakefulness.is_held


@pytest.mark.parametrize(("driver", "latency_us"), [("haltpoll", 0), ("intel_idle", 5), ("none", 5)])
def test_virtual_cores_must_not_halt_and_real_ones_may_doze(device: Path, driver: str, latency_us: int) -> None:
    wakefulness = wakefulness_of(device, driver)
    wakefulness.hold()
    wakefulness.hold()
    assert struct.unpack("=i", device.read_bytes()) == (latency_us,)
    wakefulness.release()


def test_who_may_not_keep_cores_awake_goes_on_without(tmp_path: Path) -> None:
    wakefulness = Wakefulness(device=tmp_path / "none", driver=tmp_path / "none")
    questions = Questions(wakefulness)
    for _ in range(BURST):
        questions.ask()
    assert not wakefulness.is_held
    questions.close()
