"""A test in the kernel's place: it asks a session over a socket that keeps messages whole."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import threading

from regfs.errors import MountFailure, RegfsError
from regfs.model.node_id import ROOT
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.notifications import Notifications
from regfs.mount.kernel.session import KernelSession
from regfs.telemetry.stats import Stats
from tests.mount.memory_tree import SuiteTree

TIMEOUT_S = 100.0
FOR_EVER = 1 << 62


class Kernel:
    """Asks a session as the kernel does."""

    def __init__(
        self,
        *,
        tree: SuiteTree | None = None,
        timeout_s: float = 300.0,
        checks_permissions: bool = False,
        passthrough: bool = True,
    ) -> None:
        self.tree = tree or SuiteTree()
        self.stats = Stats()
        self.failures: list[tuple[str, RegfsError]] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.socket = ours
        self.socket.settimeout(TIMEOUT_S)
        self.uniques = itertools.count(2, 2)
        self.session = KernelSession(
            self.tree,
            self.stats,
            errors=lambda what, error: self.failures.append((what, error)),
            timeout_s=timeout_s,
            passthrough=passthrough,
        )
        self.session.adopt(theirs.detach(), checks_permissions=checks_permissions)
        self.ready = threading.Event()
        self.mount_failure: MountFailure | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.session.serve(self.ready.set)
        except MountFailure as error:
            self.mount_failure = error

    def send(self, opcode: int, node: int = 0, body: bytes = b"") -> int:
        unique = next(self.uniques)
        self.socket.send(struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 0, 0, 0) + body)
        return unique

    def answer(self) -> tuple[int, int, bytes]:
        """Return (unique, errno, body) of the next answer; a notice has unique 0."""
        message = self.socket.recv(2 << 20)
        length, error, unique = struct.unpack("<IiQ", message[:16])
        assert length == len(message)
        return unique, -error, message[16:]

    def ask(self, opcode: int, node: int = 0, body: bytes = b"") -> bytes:
        """Return the body of the answer, after taking what notices come before it."""
        _, number, answer = self.ask_for_all(opcode, node, body)
        assert number == 0, os.strerror(number)
        return answer

    def error(self, opcode: int, node: int = 0, body: bytes = b"") -> int:
        return self.ask_for_all(opcode, node, body)[1]

    def ask_for_all(self, opcode: int, node: int, body: bytes) -> tuple[int, int, bytes]:
        sent = self.send(opcode, node, body)
        while (got := self.answer())[0] == 0:
            pass
        assert got[0] == sent
        return got

    def init(self, minor: int = 45, flags: int = (1 << 43) - 1) -> tuple[int, ...]:
        body = struct.pack("<IIIII", 7, minor, 131072, flags & 0xFFFFFFFF, flags >> 32) + bytes(44)
        return struct.unpack("<IIIIHHIIHHIIH22x", self.ask(Opcode.INIT, 0, body))

    def node(self, *names: bytes) -> int:
        node = ROOT
        for name in names:
            node = struct.unpack_from("<Q", self.ask(Opcode.LOOKUP, node, name + b"\0"))[0]
        return node

    def close(self) -> None:
        self.socket.close()
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


def read_body(handle: int, offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)


class Silence(Notifications):
    """A kernel that takes all notifications."""

    def store(self, node: int, offset: int, content: bytes) -> bool:
        return True

    def invalidate_attributes(self, node: int) -> None:
        pass
