"""A mount under load leaks nothing: descriptors, threads, memory. REGFS_SOAK_S says for how long (2 s).

find, tar, random reads, tags that move, clients that are killed, caches that the kernel drops, and a second mount of
the same cache that comes and goes, all at once; the first mount's process is measured before, meanwhile and after.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MountRegfs
from tests.e2e.conftest import Demo
from tests.support.images import file, image_of, layer
from tests.support.mounted import Mounted, processes_naming
from tests.support.push import Pusher

SOAK_S = float(os.environ.get("REGFS_SOAK_S", "2"))
SAMPLES = 20
# Tables of images are open while they are used, and threads that wait for a registry come and go.
BREATH = 25
# A Python process takes memory in steps, and keeps what it once had.
GROWTH = 16 << 20
_MS_REMOUNT = 32


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process has at a moment; *resident* in bytes."""

    descriptors: int
    threads: int
    resident: int

    @classmethod
    def of(cls, pid: int) -> Figures:
        """Measure the process *pid*."""
        process = Path("/proc", str(pid))
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        descriptors = len(os.listdir(process / "fd"))
        return cls(descriptors, int(status["Threads"]), int(status["VmRSS"].split()[0]) * 1024)


def forget(mountpoint: Path) -> None:
    """Let the kernel forget which names and files of the mount it knows, as when it is short of memory.

    A remount that changes nothing does that to this mount alone; other tests count what is asked of theirs.
    """
    flags = os.ST_NOSUID | os.ST_NODEV | _MS_REMOUNT
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(mountpoint), None, flags, None) != 0:
        raise OSError(ctypes.get_errno(), "remount", str(mountpoint))


def daemon_of(mount: Mounted) -> int:
    """Return the process that serves *mount*."""
    (pid,) = processes_naming("--cache-dir\0", f"{mount.path}\0")  # without its workers
    return pid


class Load:
    """What is done to *mount*, round after round."""

    def __init__(self, mount: Mounted, demo: Demo, repository: str) -> None:
        self.rounds = 0
        self._mount = mount
        self._random = random.Random(1)
        self._rootfs = mount.path / "demo/real/v2/rootfs"
        self._files = [path for path in sorted(self._rootfs.rglob("*")) if path.is_file() and not path.is_symlink()]
        self._push = Pusher(demo.url)
        self._repository = repository

    def round(self) -> None:
        """Do everything once."""
        self.rounds += 1
        clients = list(self._clients())
        self._push.image(self._repository, "now", image_of(layer(file("version", str(self.rounds % 7).encode()))))
        moving = self._mount.path / self._repository / "now/rootfs/version"
        assert 0 <= int(moving.read_bytes()) < 7
        for path in self._random.choices(self._files, k=20):
            assert len(path.read_bytes()) == path.stat().st_size
        for client in clients:
            if self._random.random() < 0.5:
                client.send_signal(self._random.choice([signal.SIGKILL, signal.SIGINT]))
            client.wait(200)
        if os.getuid() == 0 and not self.rounds % 5:
            forget(self._mount.path)

    def _clients(self) -> Iterator[subprocess.Popen[bytes]]:
        commands = (
            ["find", str(self._rootfs), "-printf", "%s"],
            ["sh", "-c", 'tar -C "$1" -cf - . | cat', "sh", str(self._rootfs)],
            ["ls", "-lR", str(self._mount.path / "library/hello-world/latest")],
        )
        for command in commands:
            yield subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.timeout(int(SOAK_S) + 300)
def test_a_mount_under_load_leaks_nothing(mount_regfs: MountRegfs, demo: Demo, driver: str, tmp_path: Path) -> None:
    options = ["--driver", driver, "--default-registry", demo.address, "--tag-ttl", "500ms"]
    mount = mount_regfs(*options)
    load = Load(mount, demo, f"soak/{driver}")
    pid = daemon_of(mount)
    for _ in range(3):
        load.round()
    figures = [before := Figures.of(pid)]
    end_s = time.monotonic() + SOAK_S
    while time.monotonic() < end_s:
        load.round()
        with Mounted(tmp_path / "second", options=options, cache=mount.cache) as second:  # leaving insists on the end
            assert os.listdir(second.path / "demo/real/v2/rootfs")
        if time.monotonic() > end_s - SOAK_S * (1 - len(figures) / SAMPLES):
            figures.append(Figures.of(pid))
    figures.append(after := Figures.of(pid))
    for each in figures:
        print(f"{each.descriptors} descriptors, {each.threads} threads, {each.resident >> 10} KiB")
    print(f"{load.rounds} rounds; {mount.errors() or 'no errors'}")
    assert after.descriptors < before.descriptors + BREATH
    assert after.threads < before.threads + BREATH
    assert after.resident < before.resident + GROWTH
    assert mount.stats()["bugs"] == 0
    assert sorted(os.listdir(mount.cache / "ingests")) == []
