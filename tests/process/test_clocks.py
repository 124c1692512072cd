"""Times that a suspended machine and a clock that is set do not spoil."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from regfs.process import clocks
from regfs.process.clocks import Sleep, UnjumpedTime
from tests.support.mounted import REPOSITORY_ROOT

HOUR, DAY, YEAR = 3600 * 10**9, 24 * 3600 * 10**9, 365 * 24 * 3600 * 10**9


class Machine:
    """A clock that can be set, and the time since the boot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns, self._at_ns = 50 * YEAR, DAY
        monkeypatch.setattr(clocks, "_now", lambda: (self.now_ns, self._at_ns))

    def run(self, ns: int) -> None:
        self.now_ns += ns
        self._at_ns += ns

    def set_clock(self, by_ns: int) -> None:
        self.now_ns += by_ns


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_clock_that_jumps_forward_and_back_is_not_followed(machine: Machine) -> None:
    time = UnjumpedTime()
    right_ns = machine.now_ns
    for by in (DAY, 10 * YEAR):
        machine.set_clock(by)
        machine.run(HOUR)
        right_ns += HOUR
        assert time.ns() == right_ns
        machine.set_clock(-by)
        assert time.ns() == right_ns


def test_a_clock_that_stays_forward_is_followed_a_day_later(machine: Machine) -> None:
    time = UnjumpedTime()
    machine.set_clock(YEAR)
    assert time.ns() == machine.now_ns - YEAR
    machine.run(DAY)
    assert time.ns() == machine.now_ns
    machine.set_clock(YEAR)  # the next jump is one of its own
    assert time.ns() == machine.now_ns - YEAR


@pytest.mark.parametrize("by", [-DAY, -50 * YEAR, HOUR // 2])
def test_a_clock_that_is_set_back_or_a_little_is_followed_at_once(machine: Machine, by: int) -> None:
    time = UnjumpedTime()
    machine.set_clock(by)
    machine.run(HOUR)
    assert time.ns() == machine.now_ns


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a time namespace")
def test_the_time_since_the_boot_goes_on_while_the_machine_is_suspended() -> None:
    code = "import time; from regfs.process.clocks import since_boot_s; print(since_boot_s() - time.monotonic())"
    suspended = ["unshare", "--time", "--fork", "--boottime", "86400"]  # as after a day of sleep
    if subprocess.run([*suspended, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no time namespaces here")
    done = [
        subprocess.run([*prefix, sys.executable, "-c", code], cwd=REPOSITORY_ROOT, check=True, capture_output=True)
        for prefix in ([], suspended)
    ]
    awake_s, asleep_s = (float(each.stdout) for each in done)
    assert asleep_s - awake_s == pytest.approx(86400, abs=1)


def test_a_suspend_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asleep_s = clocks.since_boot_s, [0.0]
    monkeypatch.setattr(clocks, "since_boot_s", lambda: real() + asleep_s[0])
    sleep = Sleep()
    assert sleep.passed_s() == pytest.approx(0, abs=0.5)
    asleep_s[0] = 3600.0
    assert sleep.passed_s() == pytest.approx(3600, abs=0.5)
    assert sleep.passed_s() == pytest.approx(0, abs=0.5)
