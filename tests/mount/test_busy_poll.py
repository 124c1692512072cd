"""Busy polling: with --low-latency cores are kept awake during a burst of requests, and not before or after."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.mount.busy_poll import BusyPoll
from regfs.mount.cpu_latency import CpuLatencyLimit

BURST = 200


class Requests:
    """A pipe that requests come out of, and a poll that waits for them."""

    def __init__(self, limit: CpuLatencyLimit) -> None:
        self._read, self._write = os.pipe()
        self.poll = BusyPoll(self._read, sleep_ms=1, latency_limit=limit)

    def ask(self) -> None:
        """Let one request come, and be found."""
        os.write(self._write, b"r")
        while True:
            try:
                os.read(self._read, 1)
            except BlockingIOError:
                self.poll.wait()
                continue
            self.poll.found()
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


def limit_of(device: Path, driver: str) -> CpuLatencyLimit:
    file = device.with_name("current_driver")
    file.write_text(f"{driver}\n")
    return CpuLatencyLimit(device=device, driver=file)


@pytest.fixture
def limit(device: Path) -> CpuLatencyLimit:
    return limit_of(device, "intel_idle")


@pytest.fixture
def requests(limit: CpuLatencyLimit) -> Iterator[Requests]:
    made = Requests(limit)
    yield made
    made.close()


def burst(requests: Requests, limit: CpuLatencyLimit) -> None:
    for _ in range(100 * BURST):  # a machine that stands still in between makes no burst of it: then once more
        requests.ask()
        if limit.is_held:
            return


def test_cores_are_kept_awake_during_a_burst_and_sleep_when_nothing_comes(
    requests: Requests, limit: CpuLatencyLimit
) -> None:
    requests.ask()
    assert not limit.is_held
    burst(requests, limit)
    assert limit.is_held
    for _ in range(1_000_000):
        requests.poll.wait()
        if not limit.is_held:
            break
    assert not limit.is_held


def test_nothing_is_held_after_the_end(requests: Requests, limit: CpuLatencyLimit) -> None:
    burst(requests, limit)
    assert limit.is_held
    requests.poll.close()
    assert not limit.is_held


@pytest.mark.parametrize(("driver", "latency_us"), [("haltpoll", 0), ("intel_idle", 5), ("none", 5)])
def test_virtual_cores_must_not_halt_and_real_ones_may_doze(device: Path, driver: str, latency_us: int) -> None:
    limit = limit_of(device, driver)
    limit.hold()
    limit.hold()
    assert struct.unpack("=i", device.read_bytes()) == (latency_us,)
    limit.release()


def test_without_the_device_requests_are_served_all_the_same(tmp_path: Path) -> None:
    limit = CpuLatencyLimit(device=tmp_path / "none", driver=tmp_path / "none")
    requests = Requests(limit)
    for _ in range(BURST):
        requests.ask()
    assert not limit.is_held
    requests.close()
