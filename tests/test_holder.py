"""The process that holds a mount: what it writes to the log, and how it is replaced when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regfs.daemon.takeover import daemon_side
from regfs.daemon.takeover.daemon_side import Holding
from regfs.mount.kernel.kept.state_file import StateFile
from tests.support.mounted import REPOSITORY_ROOT

# The holder, with short waits between daemons that end at once.
_HOLDER = f"""
import sys
sys.path.insert(0, {str(REPOSITORY_ROOT)!r})
from regfs.daemon.takeover import holder_process
holder_process._FIRST_DELAY_S = holder_process._LONGEST_DELAY_S = 0.001
holder_process.main()
"""


@pytest.fixture
def state() -> Iterator[StateFile]:
    """The memory that daemons of a mount leave to each other."""
    state = StateFile.new()
    yield state
    state.memory.close()
    os.close(state.descriptor)


@pytest.fixture
def connection() -> Iterator[int]:
    """A descriptor in place of that of /dev/fuse: nothing happens to it."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def until(what: Callable[[], object]) -> None:
    """Wait until *what* returns something true."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_crash_loop_says_in_the_log_how_each_daemon_ended_and_what_to_do(
    state: StateFile, connection: int, tmp_path: Path
) -> None:
    """A daemon that could not be started again said nothing before the mount was gone."""
    broken, log = tmp_path / "regfs", tmp_path / "log"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('half an upgrade')")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen(["sleep", "1000"]) as daemon, ours, theirs:
        given = connection, state.descriptor, theirs.fileno()
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, *map(str, given), str(daemon.pid), str(log), "/mnt/x"],
            pass_fds=given, cwd="/", env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        until(lambda: state.holder == holder.pid)
        daemon.kill()
        until(log.exists)  # not reaped before: then any kernel tells how it ended
        assert holder.wait(timeout=100) == 1
    lines = log.read_text().splitlines()
    assert f" WARNING regfs.holder: /mnt/x: the daemon (pid {daemon.pid}) was killed by SIGKILL; another" in lines[0]
    failed = "the next daemon cannot be loaded: ImportError: half an upgrade"
    assert [line for line in lines[1:-1] if failed not in line] == []
    assert len(lines) == 2 + len(lines[1:-1]) >= 10
    assert "9 in a row have ended at once" in lines[-3]
    assert f"10 daemons in a row have ended at once: {failed}. " in lines[-1]
    assert lines[-1].endswith("regfs umount /mnt/x, and mount it again")


class Pauses(threading.Event):
    """An event that remembers for how long its waiters wanted to wait, and lets none wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_s.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def holding(state: StateFile, connection: int, pauses: Pauses, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holding]:
    """The daemon's side of a mount, which is held."""
    monkeypatch.setattr(daemon_side, "_SHORT_LIFE_S", 1000.0)
    session: Any = SimpleNamespace(
        connection=connection, own_mount=SimpleNamespace(path="/mnt/x"), drain=lambda _within_s: 0
    )
    holding = Holding(session, state, description="{}", log_file=os.devnull, control=None)
    holding._stopped = pauses
    yield holding
    holding.stop()
    if state.holder:
        os.kill(state.holder, signal.SIGKILL)
    until(lambda: not any(thread.name == "regfs-holding" for thread in threading.enumerate()))


def killed(state: StateFile) -> int:
    """Kill the holder, once there is one, and return the next one's process id."""
    until(lambda: state.holder)
    old = state.holder
    os.kill(old, signal.SIGKILL)
    until(lambda: state.holder not in (old, 0))
    return state.holder


def test_a_holder_that_dies_soon_was_replaced_five_seconds_later(
    holding: Holding, state: StateFile, pauses: Pauses
) -> None:
    """A daemon that was killed in that time left a dead mount."""
    holding.start(lambda: None)
    for _ in range(3):
        killed(state)
    assert pauses.waited_s == [0.3, 0.0, 0.1, 0.2]


def test_a_machine_without_room_for_a_process_holds_the_mount_later(
    holding: Holding, state: StateFile, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One holder that could not be started left the mount without one for good."""
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/no/such/python")
        holding.start(lambda: None)
        until(lambda: len(pauses.waited_s) > 2)
    until(lambda: state.holder)
    assert pauses.waited_s[:3] == [0.3, 1.0, 1.0]


def test_a_daemon_goes_on_when_the_holder_that_asked_it_to_end_has_died(
    holding: Holding, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount was gone: no process was left."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(holding.session, "drain", lambda _within_s: killed(state))
    holding.start(lambda: None)
    until(lambda: state.holder)
    holding.hand_over()
    assert ended == []
