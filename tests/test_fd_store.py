"""A unit of systemd whose file descriptor store keeps the mount of `regfs -f`: the test speaks systemd's side."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted, environment_for, is_holder, mounts_at, regfs_command
from tests.support.restart_load import daemon_says

_PATIENCE_S = 60.0
# Puts the descriptors from 3 on, and becomes the command.
_AS_SYSTEMD = """
import os, sys
given = [pair.split("=") for pair in sys.argv[1].split(",") if pair]
high = [os.dup2(int(number), 100 + place) for place, (_, number) in enumerate(given)]
for place, number in enumerate(high):
    os.dup2(number, 3 + place)
os.closerange(3 + len(given), 200)
os.environ |= {"LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": ":".join(name for name, _ in given)}
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Unit:
    """A service of Type=notify with FileDescriptorStoreMax=2 that runs `regfs -f` on *mount*."""

    def __init__(self, mount: Mounted, directory: Path) -> None:
        self.mount = mount
        self.store: dict[str, int] = {}
        self._directory = directory
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self._socket.settimeout(_PATIENCE_S)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and wait until it is ready and has stored what it wants to."""
        names = sorted(self.store)
        environment = {**environment_for(self.mount.home), "NOTIFY_SOCKET": str(self._directory / "notify")}
        given = [f"{name}={self.store[name]}" for name in names]
        started = subprocess.Popen(
            [sys.executable, "-c", _AS_SYSTEMD, ",".join(given), *self.mount.command], env=environment, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=list(self.store.values()),
        )  # fmt: skip
        while not self.hear().startswith("READY=1"):
            pass
        while len(self.store) < 2:
            self.hear()
        return started

    def hear(self) -> str:
        """Return the next message, and do what it says about the store."""
        message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 4)
        text = message.decode()
        fields = dict(line.partition("=")[::2] for line in text.splitlines())
        if "FDSTORE" in fields:
            self.store[fields["FDNAME"]] = descriptors[0]
        if "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.store:
            os.close(self.store.pop(fields["FDNAME"]))
        return text

    def close(self) -> None:
        for descriptor in self.store.values():
            os.close(descriptor)
        self._socket.close()


@pytest.fixture
def unit(needs_fuse: None, tmp_path: Path) -> Iterator[Unit]:
    made = Unit(Mounted(tmp_path, options=["--offline", "-f"]), tmp_path)
    yield made
    made.close()
    made.mount.clean_up()


def test_a_service_that_is_killed_goes_on_with_its_mount(unit: Unit) -> None:
    path = unit.mount.path
    daemon = unit.start()
    inside = os.open(path / ".regfs", os.O_RDONLY)
    for crashes in (1, 2):
        daemon.kill()
        daemon.wait()
        assert sorted(unit.store) == ["connection", "state"]
        daemon = unit.start()
        assert "version" in os.listdir(inside)
        assert (daemon_says(path)["pid"], daemon_says(path)["crashes"]) == (daemon.pid, crashes)
    assert mounts_at(path) == ["fuse.regfs"]
    assert not any(map(is_holder, unit.mount.processes()))
    os.close(inside)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(_PATIENCE_S) == 0
    while unit.store:
        unit.hear()
    assert mounts_at(path) == []


def test_what_was_unmounted_meanwhile_is_mounted_again(unit: Unit) -> None:
    path = unit.mount.path
    daemon = unit.start()
    daemon.kill()
    daemon.wait()
    unit.mount.run(*regfs_command(), "umount", "--lazy", path)
    daemon = unit.start()
    assert mounts_at(path) == ["fuse.regfs"]
    assert daemon_says(path)["crashes"] == 0
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(_PATIENCE_S) == 0
    assert mounts_at(path) == []
