"""The start protocol: the daemon goes to the background first, and its parent still reports how the mount went.

    parent                                   child
    fork while there is one thread           setsid, stdin from /dev/null
    waits for its report, 30 s at most       builds, mounts, answers the kernel's INIT
    prints the child's message,              {"state": "ready", "message": …} or {"state": "failed", "code": …, …}
    ends with its code                       then stdout and stderr to /dev/null, and serves

A child whose parent ends before that report (Ctrl-C) stops, so that no orphan mounts anything. The child reports
"ready" when paths answer, not when mount(2) returns, so that the first `ls` cannot come too early. On the trigger of an
automount the child leaves the parent's process group with that report, not before: until the mount is there, autofs
lets wait all that come by its path, but for the process group of the automounter, in which systemd runs mount(8).
Source: the kernel's Documentation/filesystems/autofs.rst. Used by cli/.
Nothing here prints.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

START_TIMEOUT_S = 30.0
_KILL_AFTER_S = 5.0


class Report(Protocol):
    """Receives the progress of a start. Either `ready` or `failed` is called, once."""

    def doing(self, what: str) -> None:
        """Note the present step, which the message names if the start does not end in time."""

    def ready(self, message: str) -> None:
        """Report that the mount answers."""

    def failed(self, code: int, message: str) -> None:
        """Report that there will be no mount, and why."""


class Outcome(NamedTuple):
    """How a start went: the exit code and what to print. In the child: how the daemon ended."""

    code: int
    message: str = ""
    is_child: bool = False


@dataclass(slots=True)
class PipeReport:
    """A Report to the parent process."""

    descriptor: int
    is_in_group: bool = False
    """The process is still in its parent's process group."""
    has_told: bool = False
    code: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def doing(self, what: str) -> None:
        self._tell({"state": "doing", "message": what})

    def ready(self, message: str) -> None:
        if self.is_in_group:
            os.setsid()
            self.is_in_group = False
        self._tell({"state": "ready", "message": message}, is_last=True)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (1, 2):
            os.dup2(null, standard)
        os.close(null)

    def failed(self, code: int, message: str) -> None:
        self.code = code
        self._tell({"state": "failed", "code": code, "message": message}, is_last=True)

    def _tell(self, word: dict[str, object], *, is_last: bool = False) -> None:
        with self._lock:
            if self.has_told:
                return
            # Set before the write: the parent may end as soon as it has read the report, and _watch_parent must know.
            self.has_told = is_last
            try:
                os.write(self.descriptor, json.dumps(word).encode() + b"\n")
            except BrokenPipeError:
                pass  # the parent is gone; _watch_parent sees to it


def in_background(
    serve: Callable[[Report], None],
    *,
    log_name: str,
    timeout_s: float = START_TIMEOUT_S,
    meanwhile: Callable[[], object] = lambda: None,
    is_automount: bool = False,
) -> Outcome:
    """Run *serve* in a child process, and return when the child has reported how its start went.

    Returns twice: in the parent with what to print, in the child when *serve* has returned. The message about a child
    that dies without a report has *log_name*. The parent calls *meanwhile* while it waits. *is_automount*: the mount
    point is the trigger of an automount. Call this while the process has one thread: fork(2) copies only one.
    """
    words, tell = os.pipe()
    parent_lives, parent_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(words)
        os.close(parent_end)
        return _child(serve, PipeReport(tell, is_in_group=is_automount), parent_lives)
    os.close(tell)
    os.close(parent_lives)
    try:
        meanwhile()
        return _await_word(child, words, log_name=log_name, timeout_s=timeout_s)
    finally:
        os.close(words)
        os.close(parent_end)


def _child(serve: Callable[[Report], None], report: PipeReport, parent_lives: int) -> Outcome:
    if not report.is_in_group:
        os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.chdir("/")
    threading.Thread(target=_watch_parent, args=(parent_lives, report), name="regfs-parent", daemon=True).start()
    serve(report)
    return Outcome(report.code, is_child=True)


def _watch_parent(parent_lives: int, report: PipeReport) -> None:
    os.read(parent_lives, 1)  # returns when the parent has ended: nothing is ever written
    os.close(parent_lives)
    if not report.has_told:
        # To the main thread: another thread may get a signal for the process, which would not wake the main thread.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _await_word(child: int, words: int, *, log_name: str, timeout_s: float) -> Outcome:
    deadline = time.monotonic() + timeout_s
    received, doing = b"", "starting"
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([words], [], [], left_s)[0]:
            _stop(child)
            return Outcome(1, f"regfs did not start within {timeout_s:.0f} s; it was {doing}. The log is in {log_name}")
        chunk = os.read(words, 65536)
        if not chunk:
            return Outcome(1, f"regfs died while {doing} ({_end_of(child)}); the log is in {log_name}")
        received += chunk
        *lines, received = received.split(b"\n")
        for word in map(json.loads, lines):
            if word["state"] == "doing":
                doing = word["message"]
            elif word["state"] == "ready":
                return Outcome(0, word["message"])
            else:
                os.waitpid(child, 0)
                return Outcome(word["code"], word["message"])


def _stop(child: int) -> None:
    """End the child: by SIGTERM, so that it unmounts, and then by SIGKILL."""
    os.kill(child, signal.SIGTERM)
    end = time.monotonic() + _KILL_AFTER_S
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _end_of(child: int) -> str:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
