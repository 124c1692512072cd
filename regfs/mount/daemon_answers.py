"""Reads `.regfs/` of mounts without ever waiting for a daemon that hangs.

A read(2) from a FUSE mount whose daemon hangs cannot be interrupted: once the daemon has read the request, not even
SIGKILL ends the process. So a child process reads each mount. A child that hangs is left behind; it keeps no descriptor
of its parent, or its end of a pipe would keep `regfs status | cat` from ending. Its name is the mount's device: while a
child of that name exists no other one is started for the mount, so that monitoring every minute does not fill the
process table.

Used by the verbs. Thread rule: any thread; the child runs no other thread's code.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from regfs.mount.mountpoint import Mounted

ANSWERS_WITHIN_S = 4.0  # seconds; with what a start and a slow machine take, five in all
_LOOK_EVERY_S = 0.05
_MOST = 1 << 20  # bytes of one file
_CHUNK = 1 << 16
_ENDED = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one mount answered: the texts of its files, or *errno*, or nothing in time (*is_late*)."""

    texts: Mapping[str, str] = field(default_factory=dict)
    errno: int = 0
    is_late: bool = False


@dataclass(slots=True)
class _Reader:
    """A child process that reads from one mount, and what it has sent. *pid* is 0 before it is started."""

    mounted: Mounted
    pid: int = 0
    pipe: int = -1
    received: bytearray = field(default_factory=bytearray)
    has_ended: bool = False

    def start(self, names: Sequence[str]) -> None:
        """Start a child that reads the files *names*. Raises OSError."""
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _read_and_exit(self.mounted, names, theirs)
        os.close(theirs)

    def receive(self, selector: selectors.DefaultSelector) -> None:
        """Take what the child has written, or note its end."""
        chunk = os.read(self.pipe, _CHUNK)
        self.received += chunk
        if not chunk:
            self.has_ended = True
            selector.unregister(self.pipe)

    def answer(self) -> Answer:
        """Return what the child has found so far."""
        if not self.has_ended:
            return Answer(is_late=True)
        said = json.loads(self.received or b"{}")  # nothing at all: it was killed
        return Answer(said.get("texts", {}), said.get("errno", 0))

    def leave(self) -> None:
        """Close the pipe, and kill the child if it has not ended; one that hangs ends when its mount does."""
        if not self.pid:
            return
        os.close(self.pipe)
        with suppress(ProcessLookupError):
            if not self.has_ended:
                os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0 if self.has_ended else os.WNOHANG)


def ask(mounts: Sequence[Mounted], names: Sequence[str], *, within_s: float = ANSWERS_WITHIN_S) -> list[Answer]:
    """Return what *mounts* have in the files *names* of `.regfs/`. All mounts are read at the same time.

    Takes *within_s* seconds at most, for any number of mounts. Raises OSError where no process can be started.
    """
    end = time.monotonic() + within_s
    readers = [_Reader(mounted) for mounted in mounts]
    try:
        waiting = list(readers)
        with selectors.DefaultSelector() as selector:
            while (waiting or selector.get_map()) and (left_s := end - time.monotonic()) > 0:
                waiting = _start_free(waiting, names, selector)
                for key, _ in selector.select(min(left_s, _LOOK_EVERY_S) if waiting else left_s):
                    key.data.receive(selector)
        return [reader.answer() for reader in readers]
    finally:
        for reader in readers:
            reader.leave()


def _start_free(waiting: Sequence[_Reader], names: Sequence[str], selector: selectors.DefaultSelector) -> list[_Reader]:
    """Start those of *waiting* whose mount no other process of this user asks now, and return the rest."""
    if not waiting:
        return []
    asked, left = _names_of_processes(), []
    for reader in waiting:
        name = _name(reader.mounted)
        if name in asked:
            left.append(reader)
        else:
            asked.add(name)  # a bind mount of the same one comes after it
            reader.start(names)
            selector.register(reader.pipe, selectors.EVENT_READ, reader)
    return left


def _name(mounted: Mounted) -> str:
    """Return the name of a process that reads from *mounted*: 15 bytes at most, proc_pid_comm(5)."""
    return f"regfs?{mounted.device}"[:15]


def _names_of_processes() -> set[str]:
    """Return the names of all processes of this user that have not ended: an earlier child may be left as a zombie."""
    names = set()
    for entry in os.scandir("/proc"):
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid():
                name, _, fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")
                if fields.split()[0] not in _ENDED:
                    names.add(name.partition("(")[2])
    return names


def _read_and_exit(mounted: Mounted, names: Sequence[str], pipe: int) -> NoReturn:
    """Write what is in the files to *pipe* and end; runs in the child."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        with suppress(OSError):
            os.write(os.open("/proc/self/comm", os.O_WRONLY), _name(mounted).encode())
        said: dict[str, object] = {}
        try:
            said["texts"] = _texts(mounted.mountpoint, names)
        except OSError as error:
            said["errno"] = error.errno
        words = memoryview(json.dumps(said).encode())
        while words:
            words = words[os.write(pipe, words) :]
    finally:
        os._exit(0)


def _texts(mountpoint: str, names: Sequence[str]) -> dict[str, str]:
    texts = {}
    for name in names:
        try:
            fd = os.open(os.path.join(mountpoint, ".regfs", name), os.O_RDONLY)
        except FileNotFoundError:
            continue  # a daemon of an older release
        content = bytearray()
        while len(content) < _MOST and (chunk := os.read(fd, _CHUNK)):
            content += chunk
        os.close(fd)
        texts[name] = content.decode("utf-8", "replace")
    return texts
