"""Starts the processes of `regfs run`, sends them the plan, and waits for them.

The process that enters the namespaces is started first, while this one has one thread and little in memory: it gets
ready while the image is looked up. Used by cli/verbs/run.py and verbs/run.py. Main thread only: it handles signals.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from regfs.errors import InvalidOption, MountFailure
from regfs.export.container.channel import Message, channel_pair
from regfs.export.container.id_maps import IdMaps, maps_here, write_maps
from regfs.export.container.namespaces import FAILED, Namespaces, enter
from regfs.export.container.plan import Asked, Plan
from regfs.export.container.root_directory import Sandbox
from regfs.export.container.terminal import Terminals, size_of
from regfs.mount.mountpoint import may_mount
from regfs.process.user import is_root_of_machine

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
Say = Callable[[str], None]
Serve = Callable[[int], None]


def start(asked: Asked, *, owner: str, allow_suid: bool, allow_dev: bool) -> Entered:
    """Start the processes for what is *asked*. Call this while the process has one thread.

    A process that may mount needs no user namespace; any other gets one, with users by *owner* ("image", "me",
    "subuid").
    Raises MountFailure, InvalidOption.
    """
    maps: IdMaps | None = None
    if not may_mount():
        maps = maps_here(wanted={"me": False, "subuid": True}.get(owner))
    elif owner != "image":
        raise InvalidOption(f"--owner {owner}: root runs images with the owners that they have")
    if asked.keep is not None:
        try:
            asked.keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MountFailure(f"--keep {asked.keep}: {error.strerror}") from error
    sandbox = Sandbox(
        volumes=asked.volumes,
        keep=asked.keep,
        has_network=asked.network == "host",
        has_input=asked.has_input,
        has_terminal=asked.has_terminal,
        size=size_of(0 if os.isatty(0) else 1),
        is_root=maps is None and is_root_of_machine(),
        allow_suid=allow_suid,
        allow_dev=allow_dev,
    )
    return Entered(Namespaces(maps, sandbox.has_network), sandbox)


class Entered:
    """A process that has entered, or will enter, new namespaces, and waits for its plan."""

    def __init__(self, namespaces: Namespaces, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._namespaces = namespaces
        self._channel, theirs = channel_pair()
        self._pid = os.fork()
        if self._pid == 0:
            self._channel.close()
            enter(namespaces, sandbox, theirs)
        theirs.close()
        self._process = os.pidfd_open(self._pid)
        self._terminals: Terminals | None = None
        self._texts: list[str] = []

    @property
    def is_root(self) -> bool:
        """Whether root of the machine runs it."""
        return self._sandbox.is_root

    @property
    def has_one_user(self) -> bool:
        """Whether its user namespace has no user but root."""
        return self._namespaces.maps is not None and self._namespaces.maps.is_single

    def run(self, plan: Plan, *, lower: int | None, serve: Serve, say: Say) -> int:
        """Run *plan* in it, forward signals and the terminal, and return the exit status.

        *lower* is a mount of the image's files. Without one, *serve* is called with a FUSE connection that it serves in
        another thread. *say* is called with notes and errors.
        """
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*_PASSED_ON, signal.SIGWINCH):
            signal.signal(number, lambda _number, _frame: None)
        try:
            if not self._wait_for_maps(say):
                return self._ended()
            self._begin(plan, lower)
            return self._attend(reader, serve, say)
        finally:
            signal.set_wakeup_fd(-1)
            if self._terminals is not None:
                self._terminals.close()
            self._say_texts(say)

    def kill(self) -> None:
        """Kill it and all its processes. Any thread, until end() is called."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and release its descriptors."""
        self.kill()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._channel.close()
        os.close(self._process)

    def _wait_for_maps(self, say: Say) -> bool:
        maps = self._namespaces.maps
        if maps is None or maps.is_single:
            return True
        message = self._channel.receive()
        if message.kind != "unshared":
            self._hear(message, lambda _descriptor: None, say)
            return False
        write_maps(self._pid, maps)
        self._channel.send("mapped")
        return True

    def _begin(self, plan: Plan, lower: int | None) -> None:
        file = os.memfd_create("plan", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as plan_file:
                plan_file.write(plan.to_json())
            os.lseek(file, 0, os.SEEK_SET)
            self._channel.send("begin", descriptors=[file, *([] if lower is None else [lower])])
        finally:
            os.close(file)

    def _attend(self, signals: int, serve: Serve, say: Say) -> int:
        """Handle signals, messages and the terminal until the process has ended."""
        while True:
            poll = select.poll()
            terminals = [] if self._terminals is None else self._terminals.wanted()
            for descriptor, events in [(signals, select.POLLIN), (self._process, select.POLLIN), *terminals]:
                poll.register(descriptor, events)
            poll.register(self._channel, select.POLLIN)
            for descriptor, events in poll.poll():
                if descriptor == signals:
                    self._pass_on(signals)
                elif descriptor == self._channel.fileno():
                    if not self._hear(self._channel.receive(), serve, say):
                        return self._ended()
                elif descriptor == self._process:
                    while (message := self._channel.receive()).kind:
                        self._hear(message, serve, say)
                    return self._ended()
                elif self._terminals is not None and not self._terminals.ready(descriptor, events):
                    self._channel.send("signal", number=int(signal.SIGHUP))  # the signal of a closed terminal

    def _pass_on(self, signals: int) -> None:
        with suppress(BlockingIOError):
            for number in os.read(signals, 512):
                if number != signal.SIGWINCH:
                    self._channel.send("signal", number=number)
                elif self._terminals is not None:
                    self._terminals.resize()

    def _hear(self, message: Message, serve: Serve, say: Say) -> bool:
        """Handle *message*; return whether the other side is still there."""
        if message.kind == "fuse":
            serve(message.descriptors[0])
        elif message.kind == "terminal":
            self._terminals = Terminals(message.descriptors[0], has_input=self._sandbox.has_input)
        elif message.kind in ("note", "error"):
            self._texts.append(str(message.values["text"]))
            if self._terminals is None:  # otherwise the terminal is the program's, and the text waits for its end
                self._say_texts(say)
        return bool(message.kind)

    def _say_texts(self, say: Say) -> None:
        while self._texts:
            say(self._texts.pop(0))

    def _ended(self) -> int:
        """Wait for the end of the process and return its exit status."""
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:
            return FAILED
        if self._terminals is not None:
            self._terminals.drain()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
