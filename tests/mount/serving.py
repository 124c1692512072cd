"""One mount of the suite's tree in a process of its own: a test must never wait for a mount that it serves itself.

`python -m tests.mount.serving DRIVER [WORD...] MOUNTPOINT [WORD...]`: says READY on standard output; SIGTERM stops it,
and SIGHUP refreshes, as with the daemon. Words:

    allow_other
    ro                  read-only for the kernel too
    without_sys_admin   as an ordinary user has it, who needs the helper program
    hanging             the tree of hanging_tree.py; what hangs is looked for often
    timeout=SECONDS     how long a request may take

DRIVERS is the seam: driver -> function that makes a session of mount(), serve(on_ready), unmount() and stop().
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO, Any

from regfs.errors import RegfsError
from regfs.mount import mountpoint as mountpoints
from regfs.telemetry.stats import Stats
from tests.mount.memory_tree import SuiteTree

TIMEOUT_S = 100.0
CAP_SYS_ADMIN = 21


def kernel_session(tree: Any, errors: Callable[[str, RegfsError], None], timeout_s: float) -> Any:
    """Return a session of the kernel driver."""
    from regfs.mount.kernel.session import KernelSession

    return KernelSession(tree, Stats(), errors=errors, timeout_s=timeout_s)


def fusepy_session(tree: Any, errors: Callable[[str, RegfsError], None], timeout_s: float) -> Any:
    """Return a session of the fusepy driver."""
    from regfs.mount.fusepy.session import FusepySession

    return FusepySession(tree, Stats(), errors=errors, timeout_s=timeout_s)


LOADED = ("regfs.mount.kernel.session", "regfs.mount.fusepy.session", "tests.mount.hanging_tree")
DRIVERS: dict[str, Callable[[Any, Callable[[str, RegfsError], None], float], Any]] = {
    "kernel": kernel_session,
    "fusepy": fusepy_session,
}


class Forked:
    """A process that serves, forked from one that has loaded both drivers, which takes longer than the rest of a test.

    To be used as a Popen.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        receiving, sending = _fork_server().Pipe(duplex=False)
        self._process = _fork_server().Process(target=_become, args=(list(words), sending, str(log)))
        self._process.start()
        sending.close()
        self.pid = self._process.pid
        self.stdout: IO[bytes] | None = os.fdopen(os.dup(receiving.fileno()), "rb")
        receiving.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("serving", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.pid is not None
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *LOADED])
    return context


def _become(words: list[str], output: Connection, log: str) -> None:
    """Serve in this process, as if it had been started so."""
    os.dup2(output.fileno(), 1)
    with open(log, "wb") as errors:
        os.dup2(errors.fileno(), 2)
    output.close()
    sys.argv = [__file__, *words]
    main()


class Serving:
    """A mount that another process serves; *driver* may have words behind it: kernel+without_sys_admin."""

    def __init__(self, driver: str, mountpoint: Path, words: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        mountpoint.mkdir(exist_ok=True)
        self.driver = driver
        self.path = mountpoint
        self.log = mountpoint.with_name(mountpoint.name + ".log")
        words = [*driver.split("+"), str(mountpoint), *words]
        self.process = _run_behind(prefix, words, self.log) if prefix else Forked(words, self.log)
        self.expect("READY")

    @property
    def output(self) -> IO[bytes]:
        """Return what the process says."""
        assert self.process.stdout is not None
        return self.process.stdout

    def expect(self, word: str, times: int = 1) -> None:
        """Wait until the process has said *word*."""
        for _ in range(times):
            line = self.output.readline()
            assert line == word.encode() + b"\n", f"{line!r}; {self.log.read_text()}"

    def is_mounted(self) -> bool:
        """Tell whether anything is mounted there; asks nobody."""
        return mountpoints.topmost(str(self.path)) is not None

    def stop(self) -> int:
        """Let the process end as on SIGTERM; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)

    def clean_up(self) -> None:
        """End the process, whatever it does, and leave no mount."""
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        while self.is_mounted():
            mountpoints.unmount(str(self.path), lazily=True)
        self.output.close()


def _run_behind(prefix: Sequence[str], words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that serves, with *prefix* before its command."""
    with log.open("wb") as errors:
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.mount.serving", *words],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )


_SIGNALS = {signal.SIGTERM, signal.SIGHUP}


def main() -> None:
    """Serve until SIGTERM or umount."""
    from regfs.mount.options import MountOptions

    driver, *words = sys.argv[1:]
    mountpoint = next(word for word in words if word.startswith("/"))
    logging.basicConfig(level=logging.INFO)
    if "without_sys_admin" in words:
        drop_sys_admin()
    timeout_s = next((float(word.partition("=")[2]) for word in words if word.startswith("timeout=")), 300.0)
    tree = look_for_hangs_often() if "hanging" in words else SuiteTree()
    session = DRIVERS[driver](tree, lambda what, error: print(f"{what}: {error}", file=sys.stderr), timeout_s)
    # Blocked in every thread and taken by one: a handler would run in the main thread, which serve() keeps waiting, and
    # which a signal that the kernel gives to another thread does not wake.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    options = MountOptions("docker.io", allow_other="allow_other" in words, read_only="ro" in words)
    session.mount(mountpoint, options)
    threading.Thread(target=heed_signals, args=(session,), daemon=True).start()
    session.serve(lambda: print("READY", flush=True))


def look_for_hangs_often() -> SuiteTree:
    """Return a tree in which requests hang; the sessions of this process will soon see that they do."""
    from regfs.mount.fusepy import hang_watch, session
    from regfs.mount.kernel import loop_watch
    from tests.mount.hanging_tree import HangingTree

    loop_watch._LOOK_S = hang_watch._LOOK_S = 0.1
    session._END_GRACE_S = 0.5
    return HangingTree()


def heed_signals(session: Any) -> None:
    """Stop *session* on SIGTERM; let it refresh on SIGHUP."""
    while True:
        if signal.sigwait(_SIGNALS) == signal.SIGTERM:
            # Not in this thread, which nobody waits for: the session may end before all of stop() is done.
            threading.Thread(target=session.stop, daemon=False).start()
        else:
            session.refresh()


def drop_sys_admin() -> None:
    """Give up CAP_SYS_ADMIN in this process; set-user-id programs get it all the same (capset(2), version 3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(head, sets) or not sets[1]:
        raise OSError(ctypes.get_errno(), "capget")
    for number in range(3):
        sets[number] &= ~(1 << CAP_SYS_ADMIN)
    if libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
