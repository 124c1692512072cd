"""Starts workers through the fork server (fork_server.py).

A ForkedProcess is such a worker, with the parts of subprocess.Popen that worker.py needs.
This process has one fork server, started with the first worker, and again if it has ended. If it cannot run (an old
kernel, another system), each worker starts as a new Python process. Used by worker.py. Thread rule: any thread.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import IO

from regfs.errors import WorkerKilled
from regfs.images.workers.fork_server import LARGEST_JOB, READY
from regfs.images.workers.own_process import process_environment

_START_S = 20.0
_NOT_AGAIN_S = 60.0

_lock = threading.Lock()
_server: _ForkServer | None = None
_refused_until_s = 0.0


class ForkedProcess:
    """A process whose parent is the fork server."""

    def __init__(self, pid: int, pidfd: int, status: socket.socket, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._status = status
        self._lock = threading.Lock()

    def kill(self) -> None:
        """Send the process SIGKILL; does nothing if it has ended."""
        with self._lock, suppress(ProcessLookupError):
            if self.returncode is None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def poll(self) -> int | None:
        """Return the process's exit code, -N if signal N ended it; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended and return its exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            with self._lock:
                if self.returncode is None:
                    self.returncode = self._exit_code()
        return self.returncode

    def communicate(self) -> None:
        """Wait until the process has ended, and close its pipes."""
        self.wait()
        self.stdout.close()
        self.stderr.close()

    def _exit_code(self) -> int:
        self._status.settimeout(_START_S)
        try:
            code = os.waitstatus_to_exitcode(int(self._status.recv(100)))
        except (OSError, ValueError):  # the fork server was killed, and the worker's exit status with it
            code = -signal.SIGKILL
        os.close(self._pidfd)
        self._status.close()
        return code


class _ForkServer:
    def __init__(self) -> None:
        """Start the fork server. Raises OSError."""
        self._jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "regfs.images.workers.fork_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),), env=process_environment(), start_new_session=True,
            )  # fmt: skip
        self._jobs.settimeout(_START_S)
        try:
            is_ready = self._jobs.recv(len(READY)) == READY
        except OSError:
            is_ready = False
        if not is_ready:
            self.end()
            raise OSError("the fork server does not start")

    def runs(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def send(self, job: bytes, fds: list[int]) -> bool:
        """Send a job; return False if the server has ended and the job has not begun."""
        try:
            return self._process.poll() is None and socket.send_fds(self._jobs, [job], fds) > 0
        except OSError:
            return False

    def end(self) -> None:
        """End the server."""
        self._jobs.close()
        self._process.kill()
        self._process.wait()


def has_fork_server() -> bool:
    """Whether the fork server runs, so that a worker starts in 5 ms."""
    with _lock:
        return _server is not None and _server.runs()


def forked(module: str, argument: Mapping[str, object], *, stdin: int, memory_fd: int | None) -> ForkedProcess | None:
    """Return a forked worker that runs `module.main(argument)`; None if there is no fork server.

    Raises OSError if the fork fails, WorkerKilled if the fork server was killed meanwhile.
    """
    job = json.dumps([module, argument, _working_directory()]).encode()
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal") or len(job) > LARGEST_JOB:
        return None
    with ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(theirs.close)
        failed = stack.enter_context(ExitStack())
        failed.callback(ours.close)
        streams = []
        given = [stdin]
        for _ in range(2):
            read_end, write_end = os.pipe()
            stack.callback(os.close, write_end)
            streams.append(failed.enter_context(os.fdopen(read_end, "rb", buffering=0)))
            given.append(write_end)
        given.append(theirs.fileno())
        if memory_fd is not None:
            given.append(memory_fd)
        server = _hand_over(job, given)
        if server is None:
            return None
        theirs.close()  # so that this process notices when the server ends
        pid, pidfd = _begun(ours, server)
        failed.pop_all()
        return ForkedProcess(pid, pidfd, ours, *streams)


def _hand_over(job: bytes, fds: list[int]) -> _ForkServer | None:
    """Send *job* to the fork server, which is started if needed, and return it; None if it cannot run."""
    global _server, _refused_until_s
    with _lock:
        if _server is not None:
            if _server.send(job, fds):
                return _server
            _server.end()
            _server = None
        if time.monotonic() < _refused_until_s:
            return None
        try:
            _server = _ForkServer()
        except OSError:
            _refused_until_s = time.monotonic() + _NOT_AGAIN_S
            return None
        return _server if _server.send(job, fds) else None


def _begun(status: socket.socket, server: _ForkServer) -> tuple[int, int]:
    """Return process id and pidfd of the worker that *server* has begun."""
    status.settimeout(_START_S)
    try:
        message, fds, _, _ = socket.recv_fds(status, 100, 1)
    except OSError:
        message, fds = b"", []
    if message.startswith(b"errno "):
        number = int(message.split()[1])
        raise OSError(number, os.strerror(number))
    if not fds:
        _drop(server)
        raise WorkerKilled("the fork server was killed or hangs")
    return int(message), fds[0]


def _drop(server: _ForkServer) -> None:
    """End *server*, which was killed or hangs.

    Another thread may have started the next one since: two jobs of the killed one notice it one after the other.
    """
    global _server
    with _lock:
        if _server is server:
            _server = None
    server.end()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"
