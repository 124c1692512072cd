"""A process that has loaded regfs once, and forks a copy of itself for each regfs that most tests run.

Loading regfs takes 0.15 s of CPU time, and the first request as much again; forking takes 0.02 s. The copy runs the
entry point with the arguments, environment, working directory and streams that it is given, in a process of its own,
and a mount goes to the background as ever. /proc shows the command line that it would have: tests find it by that.

What only a real start can show (modules that are not loaded yet, what an ordinary user may read of this tree, what
Python reads from the environment) is tested where the program itself runs: Mounted runs it where `can_run` says no; the
tests of the standard streams, of signals, of imports, of an ordinary user and of an installed regfs run it always.

    client   [environment, directory, uid or null, shorter waits, arguments] as JSON, and descriptors for stdin, stdout
             and stderr
    server   the exit code as text, once the copy has ended

Thread rule: any thread; one runs at a time.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from regfs.mount.fusepy import LIBRARY
from tests.support.shorter_waits import shorten_waits

_ROOT = Path(__file__).parents[2]
_MESSAGE_LIMIT = 1 << 17
_PR_SET_DUMPABLE = 4
# The longest command line that a copy can show: it is written over the arguments of the server.
_ROOM = 1 << 14
# What a mount loads until it has served a file, by either driver, and what most verbs load.
_MODULES = (
    "encodings.ascii",
    "encodings.utf_8_sig",
    "isal.igzip",
    "isal.isal_zlib",
    "regfs.cli.main",
    "regfs.cli.mount_options",
    "regfs.cli.verbs.run",
    "regfs.cli.verbs.umount",
    "regfs.daemon.launch",
    "regfs.daemon.registry_reachability",
    "regfs.daemon.serve",
    "regfs.daemon.takeover.daemon_side",
    "regfs.export.container.namespaces",
    "regfs.export.container.first_process",
    "regfs.export.container.supervisor",
    "regfs.images.judging.containers_policy.trusted_root",
    "regfs.images.judging.keys",
    "regfs.images.workers.ingest",
    "regfs.images.workers.merge",
    "regfs.layers.compression.gzip",
    "regfs.layers.ingest",
    "regfs.mount.checks",
    "regfs.mount.daemon_answers",
    "regfs.mount.fusepy.session",
    "regfs.mount.kernel.kept.node_records",
    "regfs.mount.kernel.session",
    "regfs.registry.client_parts",
    "regfs.registry.hosts.registries_conf",
    "regfs.registry.hosts.toml_files",
    "regfs.registry.http.transport",
    "regfs.rootfs.merge",
    "regfs.verbs.progress",
    "regfs.verbs.run",
    "regfs.verbs.umount",
    "tomllib",
)
# What Python, the C library and libfuse read when a process starts.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "FUSE_")


def can_run(environment: Mapping[str, str] | None) -> bool:
    """Tell whether a copy can run with these settings: none is read earlier than a copy begins."""
    return not any(name.startswith(_READ_AT_START) for name in environment or ())


def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    uid: int | None = None,
    stdin: str = "",
    timeout_s: float = 200,
    shorter_waits: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run` does for `python -m regfs ARGUMENTS`, its output captured.

    With *uid*, as that user without any privilege, which this process must be allowed to become. With *shorter_waits*,
    a daemon asks sooner for what has failed (shorter_waits.py).
    """
    message = json.dumps([dict(environment), str(directory), uid, shorter_waits, list(arguments)]).encode()
    return _server().run(message, arguments, stdin, timeout_s)


class _Server:
    """The process that forks, seen from the tests; it ends with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), "-" * _ROOM]
            environment = {**os.environ, "FUSE_LIBRARY_PATH": LIBRARY}
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], cwd=_ROOT, env=environment, stdin=subprocess.DEVNULL
            )

    def run(
        self, message: bytes, arguments: Sequence[str], stdin: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        with ExitStack() as stack:
            streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            streams[0].write(stdin.encode())
            streams[0].seek(0)
            with self._lock:
                self._socket.settimeout(timeout_s)
                socket.send_fds(self._socket, [message], [stream.fileno() for stream in streams])
                code = int(self._socket.recv(100))
            for stream in streams:
                stream.seek(0)
            out, error = (os.fsdecode(stream.read()) for stream in streams[1:])
            return subprocess.CompletedProcess(arguments, code, out, error)


@cache
def _server() -> _Server:
    return _Server()


def main() -> None:
    """Load regfs, and fork for each message until the tests end."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    for name in _MODULES:
        with suppress(ImportError):  # libfuse is not installed: no test will want that driver
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(connection, _MESSAGE_LIMIT, 3)
        if not message:
            return
        child = os.fork()
        if child == 0:
            connection.close()
            environment, directory, uid, has_shorter_waits, arguments = json.loads(message)
            if has_shorter_waits:
                shorten_waits()
            _become(environment, directory, uid, arguments, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _pid, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(
    environment: dict[str, str], directory: str, uid: int | None, arguments: list[str], streams: list[int]
) -> NoReturn:
    """Run regfs in this process, as if it had been started so, to its end."""
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    _show_command_line([sys.executable, "-m", "regfs", *arguments])
    if uid is not None:
        _give_up_privileges(uid)
    sys.argv = ["regfs", *arguments]
    from regfs.cli.main import main as regfs

    regfs()


def _give_up_privileges(uid: int) -> None:
    """Become what `setpriv --reuid --regid --clear-groups` makes of a program that it runs."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # A program that is run anew may be looked at by its user, and so has its own files below /proc.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _show_command_line(words: Sequence[str]) -> None:
    """Write *words* where the kernel keeps the arguments of this process. Source: proc_pid_stat(5), arg_start."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    assert len(text) < end - start, f"no room for {words}"
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


if __name__ == "__main__":
    main()
