"""Callbacks that run in threads of their own while the disk hangs: what comes too late changes nothing."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from regfs.errors import NotFound, WorkStalled
from regfs.mount.fusepy.own_threads import OwnThreads
from regfs.process.waiting.deadline import Deadline, under

TIMEOUT_S = 100
Buffer = ctypes.c_byte * 4


class Disk:
    """A disk that hangs until `answers` is set; its methods are called as libfuse's callbacks are."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.closed = threading.Semaphore(0)

    def read(self, path: bytes, buf: Any, size: int) -> int:
        assert path == b"/.regfs/version" or self.answers.wait(TIMEOUT_S)
        ctypes.memmove(buf, b"late", size)
        return size

    def open(self, path: bytes, fip: Any) -> int:
        assert path
        assert self.answers.wait(TIMEOUT_S)
        fip.contents.value = 7
        return 0

    def release(self, path: bytes | None, fip: Any) -> int:
        assert path is None
        assert fip.contents.value == 7
        self.closed.release()
        return 0

    def getattr(self, path: bytes) -> int:
        raise NotFound(str(path))


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.answers.set()


@pytest.fixture
def threads(disk: Disk) -> OwnThreads:
    """Two threads for the disk, that have a tenth of a second each."""
    threads = OwnThreads(timeout_s=0.1, most_for_disk=2)
    threads.undo = {"open": disk.release}
    return threads


def read(threads: OwnThreads, disk: Disk, path: bytes, timeout_s: float = 0.1) -> bytes:
    buffer = Buffer()
    with under(Deadline(timeout_s)):
        threads.run(disk.read, (path, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_byte)), 4), path=path)
    return bytes(buffer)


def test_what_is_read_is_where_libfuse_looks_for_it(threads: OwnThreads, disk: Disk) -> None:
    disk.answers.set()
    assert read(threads, disk, b"/file", TIMEOUT_S) == b"late"
    assert threads.abandoned == 0


def test_what_a_callback_raises_is_raised(threads: OwnThreads, disk: Disk) -> None:
    with under(Deadline(TIMEOUT_S)), pytest.raises(NotFound):
        threads.run(disk.getattr, (b"/file",), path=b"/file")


def test_a_callback_that_comes_too_late_writes_nothing_into_libfuses_memory(threads: OwnThreads, disk: Disk) -> None:
    buffer = Buffer()
    with under(Deadline(0.1)), pytest.raises(WorkStalled, match=r"has not answered for 0\.1 s"):
        threads.run(disk.read, (b"/file", ctypes.cast(buffer, ctypes.POINTER(ctypes.c_byte)), 4), path=b"/file")
    assert threads.abandoned == 1
    disk.answers.set()
    while threads.abandoned:
        pass
    assert bytes(buffer) == bytes(4)


def test_a_file_that_was_opened_too_late_is_closed(threads: OwnThreads, disk: Disk) -> None:
    number = ctypes.c_int(1)
    with under(Deadline(0.1)), pytest.raises(WorkStalled):
        threads.run(disk.open, (b"/file", ctypes.pointer(number)), path=b"/file")
    disk.answers.set()
    assert disk.closed.acquire(timeout=TIMEOUT_S)
    assert number.value == 1


def test_threads_that_hang_are_not_more_than_the_limit(threads: OwnThreads, disk: Disk) -> None:
    for _ in range(2):
        with pytest.raises(WorkStalled, match="has not answered"):
            read(threads, disk, b"/file")
    with pytest.raises(WorkStalled, match="too many requests"):
        read(threads, disk, b"/file", TIMEOUT_S)
    assert read(threads, disk, b"/.regfs/version", TIMEOUT_S) == b"late"


def test_a_disk_that_answers_again_is_asked_again(threads: OwnThreads, disk: Disk) -> None:
    for _ in range(2):
        with pytest.raises(WorkStalled):
            read(threads, disk, b"/file")
    disk.answers.set()
    while threads.abandoned:
        pass
    assert read(threads, disk, b"/file", TIMEOUT_S) == b"late"
