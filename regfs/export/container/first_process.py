"""Process 1 of the new namespaces: makes the root directory, starts the program, reaps, forwards signals.

It is not the program itself: the kernel drops signals for which process 1 has no handler, so Ctrl-C would not end
most programs, and few programs reap orphans. When it ends, the kernel kills all in the process namespace.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import termios
from contextlib import suppress
from typing import NoReturn

from regfs.errors import MountFailure, RegfsError
from regfs.export.container.channel import Channel, Message
from regfs.export.container.plan import Plan
from regfs.export.container.program import User, become, user_of_image
from regfs.export.container.root_directory import RootDirectory, Sandbox
from regfs.process import syscalls

_FAILED = 125
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_TO_GROUP = (signal.SIGINT, signal.SIGQUIT)  # as a terminal sends them
_FULL = 1 << 20  # bytes: so little room for changes counts as none


def run_first_process(sandbox: Sandbox, channel: Channel) -> NoReturn:
    """Run process 1, and exit with the program's status, or 128 + the number of the signal that ended it."""
    try:
        syscalls.die_with_parent()
        syscalls.set_process_name("regfs-init")
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
        for name in os.listdir("/proc/self/fd"):  # descriptors that the shell left open are not for the program
            with suppress(OSError):
                os.set_inheritable(int(name), int(name) < 3)
        if not sandbox.has_network:
            _start_loopback()
        code = _run(sandbox, channel)
    except (RegfsError, OSError) as error:
        channel.send("error", text=str(error))
        code = _FAILED
    except BaseException as bug:
        channel.send("error", text=f"a bug of regfs: {bug!r}")
        code = _FAILED
    os._exit(code)


def _run(sandbox: Sandbox, channel: Channel) -> int:
    os.umask(0o022)
    root = RootDirectory(sandbox)
    begin = channel.receive()
    if begin.kind != "begin":
        return _FAILED
    plan_file, *lower = begin.descriptors
    with open(plan_file, "rb") as file:
        plan = Plan.from_json(file.read())
    if lower:
        root.attach_lower(lower[0])
    else:
        connection = root.serve_lower()
        channel.send("fuse", descriptors=[connection])
        os.close(connection)
    root.enter()
    user = user_of_image(plan, channel)
    _make_directory(plan.directory)
    terminal = _open_terminal(sandbox, user, channel) if sandbox.has_terminal else None
    program = os.fork()
    if program == 0:
        become(plan, user, channel, terminal=terminal, has_input=sandbox.has_input, keep_setid=sandbox.allow_suid)
    if terminal is not None:
        os.close(terminal)
    code = _wait(program, channel)
    if os.statvfs("/").f_bavail * os.statvfs("/").f_frsize < _FULL:
        where = "memory" if sandbox.keep is None else str(sandbox.keep)
        channel.send(
            "note", text=f"there was no room left for changes in {where}; --keep DIR keeps them on another disk"
        )
    return code


def _make_directory(path: str) -> None:
    """Make the working directory *path* where the image lacks it. Raises MountFailure."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        reason = "it is not a directory of the image" if isinstance(error, FileExistsError) else error.strerror
        raise MountFailure(f"the working directory {path}: {reason}; -w names another one") from error


def _open_terminal(sandbox: Sandbox, user: User, channel: Channel) -> int:
    """Return the program's side of a new terminal; the other side goes to the supervisor."""
    ours, theirs = os.openpty()
    rows, columns = sandbox.size
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with suppress(OSError):
        os.fchown(theirs, user.uid, -1)
    channel.send("terminal", descriptors=[ours])
    os.close(ours)
    return theirs


def _wait(program: int, channel: Channel) -> int:
    """Reap all children until the program has ended; return its exit status."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while True:
        code = _reap(program)
        if code is not None:
            return code
        for descriptor, _ in poll.poll():
            if descriptor == reader:
                with suppress(BlockingIOError):
                    os.read(reader, 512)
            else:
                _pass_on(channel.receive(), program)


def _reap(program: int) -> int | None:
    """Reap ended children; return the exit status of the program once it has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def _pass_on(message: Message, program: int) -> None:
    if not message.kind:
        os._exit(128 + signal.SIGKILL)  # the supervisor has ended, so the program must end
    if message.kind == "signal":
        number = int(str(message.values["number"]))
        with suppress(ProcessLookupError):
            if number in _TO_GROUP:
                os.killpg(program, number)
            else:
                os.kill(program, number)


def _start_loopback() -> None:
    """Give a network namespace of its own an address, 127.0.0.1. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
