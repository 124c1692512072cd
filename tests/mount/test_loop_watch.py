"""A disk of the cache that hangs: a thread that reads from it cannot be ended, and all requests are answered anyway."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Iterator

import pytest

from regfs.errors import WorkStalled
from regfs.model.node_id import ROOT
from regfs.mount.kernel import loop_watch
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.directory import OpenDirectory
from regfs.mount.kernel.session import KernelSession
from regfs.telemetry.stats import Stats
from regfs.tree.entry import FoundEntry
from tests.mount.asking_kernel import TIMEOUT_S, Kernel
from tests.mount.memory_tree import SuiteTree


class HangingTree(SuiteTree):
    """A tree in which some names lie on a disk that hangs until `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.hanging = threading.Semaphore(0)

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        if name.startswith(b"on-the-disk"):
            self.hanging.release()
            self.answers.wait(TIMEOUT_S)
            name = b"stable"
        return super().lookup(parent, name)


class Disk(Kernel):
    """A session whose tree has such names, and which waits for a second."""

    def __init__(self) -> None:
        self.hanging_tree = HangingTree()
        super().__init__(tree=self.hanging_tree, timeout_s=1.0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(loop_watch, "_LOOK_S", 0.05)
    asking = Disk()
    asking.init()
    yield asking
    asking.hanging_tree.answers.set()
    asking.close()


def look_up(disk: Disk, name: bytes) -> int:
    """Send a look-up that will hang, and return once it does."""
    unique = disk.send(Opcode.LOOKUP, ROOT, name + b"\0")
    assert disk.hanging_tree.hanging.acquire(timeout=TIMEOUT_S)
    return unique


def test_requests_are_answered_while_one_hangs_in_the_disk(disk: Disk) -> None:
    hanging = look_up(disk, b"on-the-disk")
    for _ in range(20):
        assert struct.unpack_from("<Q", disk.ask(Opcode.LOOKUP, ROOT, b"stable\0"))[0]
    unique, number, _ = disk.answer()
    assert (unique, number) == (hanging, errno.ETIMEDOUT)
    while not disk.failures:  # it is reported after it is answered
        disk.ask(Opcode.LOOKUP, ROOT, b"stable\0")
    told = [(what, type(error)) for what, error in disk.failures]
    assert told == [("LOOKUP of node 0x1, name 'on-the-disk'", WorkStalled)]


def test_every_request_that_hangs_in_the_disk_is_answered_at_its_deadline(disk: Disk) -> None:
    hanging = {look_up(disk, b"on-the-disk-%d" % number) for number in range(8)}
    answered = [disk.answer() for _ in hanging]
    assert {unique for unique, _, _ in answered} == hanging
    assert {number for _, number, _ in answered} == {errno.ETIMEDOUT}


def test_once_the_disk_answers_again_everything_is_as_before(disk: Disk) -> None:
    hanging = look_up(disk, b"on-the-disk")
    assert disk.answer()[:2] == (hanging, errno.ETIMEDOUT)
    disk.hanging_tree.answers.set()
    assert disk.answer()[0] == hanging  # a kernel refuses it, since it was answered
    while disk.session._loops.is_stuck:
        disk.ask(Opcode.LOOKUP, ROOT, b"stable\0")
    before = disk.stats.value("mount.waits")
    for _ in range(20):
        disk.ask(Opcode.LOOKUP, ROOT, b"stable\0")
    assert disk.stats.value("mount.waits") == before
    assert "bugs" not in {name for name, value in disk.stats.snapshot().items() if value}


def test_nothing_is_prefetched_while_the_disk_hangs() -> None:
    """The thread that took the place of the one that hangs would hang in the disk as well."""
    tree = SuiteTree()
    session = KernelSession(tree, Stats())
    node = tree.lookup(tree.lookup(ROOT, b"stable").node, b"many").node
    directory = OpenDirectory(tree, node, tree.listing(node))
    session._directory_prefetch.listed(directory, directory.read_plus(0, 4096))
    session._loops.is_stuck = True
    assert not session._prefetch()
    session._loops.is_stuck = False
    assert session._prefetch()
