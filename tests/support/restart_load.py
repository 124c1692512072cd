"""Readers and a program inside a mount while its daemon is killed or restarted: wrong bytes, errors, longest delays.

Used by tests/e2e/test_restarts.py and tests/bench/restarts.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_PATIENCE_S = 60.0

# Reads every file again and again, from the start and in parts, without what the page cache has. Ends with its input.
_READER = r"""
import hashlib, json, os, random, select, sys, time
root, seed = sys.argv[1], int(sys.argv[2])
chance, known = random.Random(seed), json.loads(sys.stdin.readline())
longest, files, wrong, errors = 0.0, 0, [], []
names = sorted(known)
held = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
os.chdir(root)
print("reading", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    name = chance.choice(names)
    begun = time.monotonic()
    try:
        with open(name, "rb", buffering=0) as file:
            longest = max(longest, time.monotonic() - begun)
            content, begun = hashlib.sha256(), time.monotonic()
            while chunk := file.read(1 << 17):
                longest = max(longest, time.monotonic() - begun)
                content.update(chunk)
                begun = time.monotonic()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if content.hexdigest() != known[name]:
            wrong.append(name)
        if chance.random() < 0.05:
            begun = time.monotonic()
            if os.listdir(held) != os.listdir("."):
                wrong.append("the listing")
            longest = max(longest, time.monotonic() - begun)
        files += 1
    except OSError as error:
        errors.append(f"{name}: {error}")
print(json.dumps({"files": files, "longest_s": longest, "wrong": wrong, "errors": errors}))
"""


@dataclass(slots=True)
class Seen:
    """What the readers have met."""

    files: int = 0
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """All that must not be."""
        return [*(f"wrong bytes: {name}" for name in self.wrong), *self.errors]


class RestartLoad:
    """*readers* processes that read *files* (sha256 by their paths below *root*), and *program*, which must go on."""

    def __init__(
        self, root: Path, files: dict[str, str], *, readers: int = 4, program: Sequence[str | Path] = ()
    ) -> None:
        self._root = root
        self._files = files
        self._number = readers
        self._program = program
        self._readers: list[subprocess.Popen[str]] = []
        self._running: subprocess.Popen[bytes] | None = None
        self.seen = Seen()

    def __enter__(self) -> Self:
        if self._program:
            self._running = subprocess.Popen(
                list(map(str, self._program)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        for seed in range(self._number):
            reader = subprocess.Popen(
                [sys.executable, "-c", _READER, str(self._root), str(seed)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self._readers.append(reader)
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write(json.dumps(self._files) + "\n")
            reader.stdin.flush()
        for reader in self._readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            try:
                said = json.loads(reader.communicate("\n", timeout=_PATIENCE_S)[0])
            except subprocess.TimeoutExpired:
                reader.kill()
                self.seen.errors.append("a reader hangs")
                continue
            except ValueError:
                self.seen.errors.append("a reader has died")
                continue
            self.seen.files += said["files"]
            self.seen.longest_s = max(self.seen.longest_s, said["longest_s"])
            self.seen.wrong += said["wrong"]
            self.seen.errors += said["errors"]
        if self._running is not None:
            if self._running.poll() is not None:
                self.seen.errors.append(f"the program has ended with {self._running.returncode}")
            self._running.kill()
            self._running.wait()


def daemon_says(mount: Path) -> dict[str, object]:
    """Return what `.regfs/daemon.json` says; waits for a daemon, as any reader does."""
    while True:
        with suppress(ValueError):  # read from two daemons, one after the other
            said: dict[str, object] = json.loads((mount / ".regfs/daemon.json").read_text())
            return said


def await_holder(mount: Path) -> None:
    """Wait until a process holds *mount*."""
    end = time.monotonic() + _PATIENCE_S
    while not daemon_says(mount).get("holder"):
        assert time.monotonic() < end, "no process holds the mount"
        time.sleep(0.02)


def kill_daemon(mount: Path) -> int:
    """Kill the daemon of *mount* with SIGKILL and return its process id."""
    pid = daemon_says(mount)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    return pid


def kill_at_random(mount: Path, times: int, *, most_s: float, seed: int = 1) -> None:
    """Kill the daemon of *mount* so often, up to *most_s* after each time that another one has answered."""
    chance = random.Random(seed)
    for _ in range(times):
        pid = daemon_says(mount)["pid"]
        assert isinstance(pid, int)
        time.sleep(chance.random() * most_s)
        os.kill(pid, signal.SIGKILL)
