"""In which order the loop has requests answered that are there at the same time."""

from __future__ import annotations

import socket
import struct

from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.kept.pending import NoPending
from regfs.mount.kernel.loop import RequestLoop


def answered(*opcodes: Opcode) -> list[int]:
    """Return in which order a loop answers requests with these opcodes, which the kernel sends in this order."""
    order: list[int] = []
    kernel, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, daemon:
        for unique, opcode in enumerate(opcodes):
            kernel.send(struct.pack("<IIQQIIIHH", 40, opcode, unique, 1, 0, 0, 0, 0, 0))
        kernel.close()
        RequestLoop(
            daemon.fileno(),
            answer=lambda opcode, *_: order.append(opcode),
            prefetch=lambda: False,
            bug=lambda *_: None,
            pending=NoPending(),
        ).run()
    return order


def test_closing_is_put_off_until_nothing_else_is_there() -> None:
    assert answered(Opcode.RELEASE, Opcode.LOOKUP) == [Opcode.LOOKUP, Opcode.RELEASE]


def test_what_was_closed_before_an_unlink_is_not_in_use_any_more() -> None:
    """rm of an image failed now and then with EBUSY, just after its last file was closed."""
    assert answered(Opcode.RELEASEDIR, Opcode.RELEASE, Opcode.UNLINK, Opcode.LOOKUP) == [
        Opcode.RELEASEDIR, Opcode.RELEASE, Opcode.UNLINK, Opcode.LOOKUP,
    ]  # fmt: skip
