"""sd_notify(3) and sd_watchdog_enabled(3), spoken to a socket of the test."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted, mounts_at, wait_for_exit

LONG_S = 30.0
DRIVERS = ["kernel", "fusepy"]


class ServiceManager:
    """The socket of a service manager, at *address*: a path, or an abstract name that begins with @."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        self._socket.settimeout(LONG_S)

    def until(self, wanted: str) -> list[str]:
        """Return the lines that were told, up to the datagram that has the line *wanted*."""
        told: list[str] = []
        while wanted not in told:
            told += self._socket.recv(4096).decode().split("\n")
        return told

    def hears_within(self, seconds: float) -> bool:
        """Tell whether anything comes in *seconds*."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(LONG_S)
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    """A service manager that listens at a path, or at an abstract address."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@regfs-{secrets.token_hex(8)}"
    listening = ServiceManager(address)
    yield listening
    listening.close()


@pytest.fixture
def mounted(manager: ServiceManager, tmp_path: Path, needs_fuse: None) -> Iterator[Callable[..., Mounted]]:
    """Return a function that mounts as a service of *manager*."""
    mounts: list[Mounted] = []

    def mount(driver: str, **environment: str) -> Mounted:
        options = ["--offline", "--driver", driver]
        mounts.append(Mounted(tmp_path, options=options, environment={"NOTIFY_SOCKET": manager.address, **environment}))
        mounts[-1].mount()
        return mounts[-1]

    yield mount
    for each in mounts:
        if mounts_at(each.path):
            each.unmount()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_service_manager_is_told_the_life_of_a_daemon(
    manager: ServiceManager, mounted: Callable[..., Mounted], driver: str
) -> None:
    mount = mounted(driver)
    process = mount.daemon
    # `Type=notify` of a unit whose command goes to the background: the process that serves is another one.
    assert manager.until("READY=1") == ["READY=1", f"MAINPID={process}"]
    assert manager.until("STATUS=serving docker.io") == ["STATUS=serving docker.io"]
    os.kill(process, signal.SIGHUP)
    told = manager.until("READY=1")
    assert told[0] == "RELOADING=1"
    assert told[1].startswith("MONOTONIC_USEC=")
    os.kill(process, signal.SIGTERM)
    manager.until("STOPPING=1")
    assert wait_for_exit([process]) == []


def test_a_watchdog_hears_of_a_daemon_until_it_stops_answering(
    manager: ServiceManager, mounted: Callable[..., Mounted]
) -> None:
    mount = mounted("kernel", WATCHDOG_USEC="200000")
    process = mount.daemon
    for _ in range(3):
        manager.until("WATCHDOG=1")
    os.kill(process, signal.SIGSTOP)
    try:
        while manager.hears_within(1.0):
            pass
    finally:
        os.kill(process, signal.SIGCONT)
    manager.until("WATCHDOG=1")


def test_the_watchdog_of_another_process_is_left_alone(
    manager: ServiceManager, mounted: Callable[..., Mounted]
) -> None:
    mounted("kernel", WATCHDOG_USEC="200000", WATCHDOG_PID="1")
    manager.until("STATUS=serving docker.io")
    assert not manager.hears_within(1.0)


def test_a_service_manager_that_is_gone_stops_no_mount(
    manager: ServiceManager, mounted: Callable[..., Mounted]
) -> None:
    mount = mounted("kernel", WATCHDOG_USEC="200000")
    manager.close()
    assert (mount.path / ".regfs/version").read_text()
