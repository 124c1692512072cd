"""The daemon's side of a mount that outlives it: starts the holder, and hands the mount over when it is asked to.

A holder that dies is replaced at once, and later and later where it dies again and again: as long as one of the two
processes lives the mount does. Used by serve.py. Thread rule: one thread of its own; `stop` and `hand_over` in any.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from regfs.daemon.takeover import holder_process
from regfs.daemon.takeover.holder_process import delay_s
from regfs.errors import MountFailure, OutOfThreads
from regfs.mount.kernel.kept.state_file import StateFile
from regfs.mount.kernel.session import KernelSession
from regfs.process.threads import start_thread

log = logging.getLogger(__name__)

# Seconds from the mount to the start of the holder: the first requests must not share the cores with it.
_START_AFTER_S = 0.3
# A holder that has lived for less is one that dies again and again.
_SHORT_LIFE_S = 5.0
# Seconds until the next attempt where no process can be started.
_NO_PROCESS_S = 1.0
_DRAIN_S = 30.0


def can_hold() -> bool:
    """Tell whether a holder can run here: processes must be known by descriptors (Linux 5.3)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):
        return False
    return bool(sys.executable) and Path(holder_process.__file__).is_file()


def new_state() -> StateFile | None:
    """Return empty state for a new mount; None, with a warning, where the mount must end with its daemon."""
    if not can_hold():
        log.info("the mount ends with this daemon: no process can hold it here")
        return None
    try:
        return StateFile.new()
    except MountFailure as failure:
        log.warning("the mount ends with this daemon: %s", failure)
        return None


class Holding:
    """The mount of *session*, held by another process, which writes its log to *log_file* ('' for syslog)."""

    def __init__(
        self,
        session: KernelSession,
        state: StateFile,
        *,
        description: str,
        log_file: str,
        control: socket.socket | None,
    ) -> None:
        """*description* is what description_as_text() returns of the mount.

        *control* is a socket to the holder that has started this process; None where no holder runs yet.
        """
        self._description = description
        self.session = session
        self._state = state
        self._point = session.own_mount.path
        self._log_file = log_file
        self._control = control
        self._holder: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()

    def start(self, on_hand_over: Callable[[], None]) -> None:
        """Start a holder where none runs. *on_hand_over* is called when another daemon is ready to take over."""
        try:
            start_thread(lambda: self._run(on_hand_over), name="regfs-holding")
        except OutOfThreads as error:
            log.warning("the mount ends with this daemon: %s", error)

    def stop(self) -> None:
        """Note that the mount ends on purpose: the holder ends with this process."""
        self._stopped.set()
        self._state.end()

    def hand_over(self) -> None:
        """Wait until no request waits for a registry, half a minute at most, and end this process, not the mount.

        The next daemon answers the requests that still wait then, and those that come meanwhile.
        """
        asking = self._control
        left = self.session.drain(_DRAIN_S)
        if self._state.has_ended:
            return  # a signal or an unmount has come meanwhile
        if asking is None or asking is not self._control:
            log.warning("this daemon goes on: the process that was to start the next one has ended")
            return
        log.info("another daemon takes over; %d requests are asked again", left)
        logging.shutdown()
        os._exit(0)

    def _run(self, on_hand_over: Callable[[], None]) -> None:
        wait_s, short_lives = _START_AFTER_S, 0
        while True:
            if self._control is None:
                if self._stopped.wait(wait_s):
                    return
                try:
                    self._control = self._start_holder()
                except MountFailure as error:
                    log.warning("the mount ends with this daemon: no holder can be started: %s", error)
                    return
                except OSError as error:
                    log.warning("the mount ends with this daemon, until a holder can be started: %s", error)
                    short_lives += 1
                    wait_s = max(_NO_PROCESS_S, delay_s(short_lives))
                    continue
            begun = time.monotonic()
            self._hear(self._control, on_hand_over)
            gone, self._control = self._control, None
            gone.close()
            if self._holder is not None:
                self._holder.wait()
            if self._stopped.is_set():
                return
            self._state.forget_holder()
            short_lives = short_lives + 1 if time.monotonic() - begun < _SHORT_LIFE_S else 0
            wait_s = delay_s(short_lives)
            log.warning("the process that holds the mount has ended; another one is started")

    def _start_holder(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._state.describe(self._description)
        given = (self.session.connection, self._state.descriptor, theirs.fileno())
        with theirs:
            self._holder = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(holder_process.__file__)), *map(str, given), str(os.getpid()),
                 self._log_file, self._point],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                pass_fds=given, start_new_session=True,
            )  # fmt: skip
        return ours

    @staticmethod
    def _hear(control: socket.socket, on_hand_over: Callable[[], None]) -> None:
        """Handle the messages of the holder until it has ended."""
        while True:
            try:
                word = control.recv(4096)
            except OSError:
                return
            if not word:
                return
            if word == b"hand over":
                on_hand_over()
