"""The kernel driver's session: which requests it hands over, interrupts, undoes, reports; and its end."""

from __future__ import annotations

import errno
import logging
import random
import struct

import pytest

from regfs.errors import OutOfThreads
from regfs.model.node_id import ROOT
from regfs.mount.kernel.abi import Opcode
from tests.mount.asking_kernel import Kernel
from tests.support.no_threads import no_threads


def test_an_unknown_request_is_not_implemented(kernel: Kernel) -> None:
    assert kernel.error(4000) == errno.ENOSYS
    assert kernel.error(Opcode.STATX, ROOT, bytes(24)) == errno.ENOSYS
    assert kernel.error(Opcode.FLUSH, ROOT, bytes(24)) == errno.ENOSYS


def test_a_malformed_request_fails_alone(kernel: Kernel) -> None:
    assert kernel.error(Opcode.READ, ROOT, b"short") == errno.EIO
    assert kernel.error(Opcode.LOOKUP, ROOT, b"") == errno.EIO
    assert kernel.error(Opcode.GETXATTR, kernel.node(b"stable"), b"\0") == errno.EIO
    kernel.send(Opcode.INTERRUPT, 0, b"x")
    assert kernel.answer()[1] == errno.EIO
    kernel.socket.send(b"not even a header")
    assert kernel.node(b"stable")


def test_any_bytes_leave_the_session_alive(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(7)
    opcodes = [opcode for opcode in Opcode if opcode not in (Opcode.INIT, Opcode.DESTROY)]
    caplog.set_level(logging.CRITICAL, "regfs.mount")
    for _ in range(2000):
        body = source.randbytes(source.choice((0, 1, 7, 8, 16, 24, 40, 63)))
        kernel.send(source.choice(opcodes), source.choice((0, ROOT, source.getrandbits(64))), body)
        unknown = kernel.send(source.getrandbits(16) + 100, ROOT, body)
        while kernel.answer()[0] != unknown:
            pass
    last = kernel.send(Opcode.LOOKUP, ROOT, b"stable\0")
    while (answer := kernel.answer())[0] != last:  # others may be answered later, by the threads that wait
        pass
    assert answer[1] == 0


def test_an_interrupted_request_ends_at_once_and_its_late_answer_is_dropped(kernel: Kernel) -> None:
    slow = kernel.node(b"slow")
    waiting = kernel.send(Opcode.LOOKUP, slow, b"lookup-1\0")
    kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", waiting))
    assert kernel.answer()[:2] == (waiting, errno.EINTR)
    kernel.tree.arrived.set()
    assert kernel.node(b"slow", b"lookup-2")
    assert kernel.failures == []


def test_an_interrupt_for_an_answered_request_changes_nothing(kernel: Kernel) -> None:
    kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", 2))
    assert kernel.node(b"stable")


def test_a_request_that_must_wait_is_answered_where_no_thread_can_be_started(kernel: Kernel) -> None:
    slow = kernel.node(b"slow")
    with no_threads():
        # ENOMEM alone lets the kernel keep the name, and all mounts below it, when it looks it up once more.
        assert kernel.error(Opcode.LOOKUP, slow, b"lookup-1\0") == errno.ENOMEM
    [(what, error)] = kernel.failures
    assert what == f"LOOKUP {kernel.tree.name_of(slow)}/lookup-1"
    assert isinstance(error, OutOfThreads)
    kernel.tree.arrived.set()
    assert kernel.node(b"slow", b"lookup-1")
    kernel.send(Opcode.INTERRUPT, 0, struct.pack("<Q", 2))
    assert kernel.stats.value("mount.interrupts") == 0


def test_a_waiting_request_holds_up_no_other(kernel: Kernel) -> None:
    slow = kernel.node(b"slow")
    waiting = [kernel.send(Opcode.LOOKUP, slow, b"lookup-%d\0" % number) for number in range(50)]
    assert kernel.node(b"stable", b"file")
    kernel.tree.arrived.set()
    assert sorted(kernel.answer()[0] for _ in waiting) == waiting


def test_a_failure_is_told_once_with_what_was_asked(kernel: Kernel) -> None:
    directory = kernel.node(b"errors")
    assert kernel.error(Opcode.LOOKUP, directory, b"unavailable\0") == errno.EHOSTUNREACH
    assert kernel.error(Opcode.LOOKUP, directory, b"not-found\0") == errno.ENOENT
    [(what, error)] = kernel.failures
    assert what == f"LOOKUP {kernel.tree.name_of(directory)}/unavailable"
    assert "as asked" in str(error)


def test_a_bug_is_counted(kernel: Kernel) -> None:
    assert kernel.error(Opcode.LOOKUP, kernel.node(b"errors"), b"bug\0") == errno.EIO
    assert kernel.stats.value("bugs") == 1


def test_the_last_file_is_closed_when_the_connection_ends() -> None:
    asking = Kernel()
    asking.init()
    asking.ask(Opcode.OPEN, asking.node(b"stable", b"file"), bytes(8))
    asking.close()
    assert len(asking.session._state.files) == 0
