"""A mount that an automount waits for, as systemd makes it for `x-systemd.automount`: the test is the automounter."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.mounted import environment_for, regfs_command

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts autofs")

_PATIENCE_S = 60.0
_PACKET = struct.Struct("=iiI8x")  # protocol, type, token of struct autofs_v5_packet; include/uapi/linux/auto_fs.h
_MISSING_DIRECT = 5
_READY, _FAIL = 0x9360, 0x9361


class Automount:
    """An autofs of the kind "direct" on *point*, whose automounter is the process group of the test."""

    def __init__(self, point: Path) -> None:
        self.point = point
        self._packets, kernels_end = os.pipe()
        options = f"fd={kernels_end},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
        libc = ctypes.CDLL(None, use_errno=True)
        made = libc.mount(b"test", os.fsencode(point), b"autofs", ctypes.c_ulong(0), options.encode())
        os.close(kernels_end)
        if made != 0:
            os.close(self._packets)
            missing(f"autofs cannot be mounted: {os.strerror(ctypes.get_errno())}")
        self._root = os.open(point, os.O_RDONLY | os.O_DIRECTORY)

    def wanted(self) -> int:
        """Return the token of the next process that wants the mount."""
        assert select.select([self._packets], [], [], _PATIENCE_S)[0], "the kernel has asked for no mount"
        _, kind, token = _PACKET.unpack_from(os.read(self._packets, 4096))
        assert kind == _MISSING_DIRECT
        return int(token)

    def answer(self, token: int, *, is_mounted: bool) -> None:
        """Let the processes that wait go on."""
        fcntl.ioctl(self._root, _READY if is_mounted else _FAIL, token)

    def close(self) -> None:
        os.close(self._root)
        os.close(self._packets)
        subprocess.run(["umount", "--lazy", self.point], check=False)


@contextmanager
def automount(point: Path) -> Iterator[Automount]:
    made = Automount(point)
    try:
        yield made
    finally:
        made.close()


def test_an_automount_shows_the_mount_to_what_has_triggered_it(needs_fuse: None, tmp_path: Path) -> None:
    """The daemon left the automounter's process group before it mounted, and so waited for its own mount."""
    point = tmp_path / "reg"
    point.mkdir()
    environment = environment_for(tmp_path / "home")
    with automount(point) as trigger:
        listing = subprocess.Popen(
            ["ls", "-a", point], stdout=subprocess.PIPE, text=True, start_new_session=True, env={"LC_ALL": "C"}
        )
        token = trigger.wanted()
        mounted = False
        try:
            done = subprocess.run(
                [*regfs_command(), "--offline", str(point)], env=environment, capture_output=True, text=True,
                timeout=_PATIENCE_S, check=False,
            )  # fmt: skip
            mounted = done.returncode == 0
        finally:
            trigger.answer(token, is_mounted=mounted)
        assert mounted, done.stderr
        assert ".regfs" in listing.communicate(timeout=_PATIENCE_S)[0].split()
        daemon = json.loads((point / ".regfs/daemon.json").read_text())["pid"]
        assert os.getsid(daemon) == daemon
        subprocess.run([*regfs_command(), "umount", "--quiet", str(point)], env=environment, check=True)
